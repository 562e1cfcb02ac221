package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/need"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestNetworkConfig(t *testing.T) {
	for _, test := range []struct {
		name, text string
		want       []link
		ignored    []string
		err        string
	}{
		{"version 1, as Proxmox writes it", `version: 1
config:
    - type: physical
      name: eth0
      mac_address: 'bc:24:11:00:00:01'
      mtu: 9000
      subnets:
      - type: static
        address: '192.0.2.7'
        netmask: '255.255.255.0'
        gateway: '192.0.2.1'
      - type: static6
        address: '2001:db8::7/64'
        gateway: 'fe80::1'
    - type: physical
      name: eth1
      subnets:
      - type: dhcp4
    - type: nameserver
      address: ['192.0.2.2', '2001:db8::2']
      search: example.com
`, []link{
			{ID: "eth0", MAC: "bc:24:11:00:00:01", SetName: "eth0", MTU: 9000, Addresses: []string{"192.0.2.7/24", "2001:db8::7/64"}, Routes: []route{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "::/0", Via: "fe80::1"}},
				Nameservers: []string{"192.0.2.2", "2001:db8::2"}, Search: []string{"example.com"}},
			{ID: "eth1", Name: "eth1", DHCP: true, Nameservers: []string{"192.0.2.2", "2001:db8::2"}, Search: []string{"example.com"}},
		}, nil, ""},
		{"version 1, all that a subnet may have", `version: 1
config:
- type: physical
  name: lan
  subnets:
  - {type: static, address: 192.0.2.7, netmask: 24, dns_nameservers: 192.0.2.2, dns_search: [a.example, b.example],
     routes: [{network: 10.0.0.0, netmask: 255.0.0.0, gateway: 192.0.2.9}, {destination: 172.16.0.0/12, gateway: 192.0.2.9, metric: 3}]}
- {type: infiniband, name: ib0}
- type: physical
  name: wrong
  subnets: [{type: static, address: 192.0.2.300/24}]
- {type: route, destination: 198.51.100.0/24, gateway: 192.0.2.8, metric: 4}
- {type: route, destination: 203.0.113.0/24, gateway: 203.0.113.1}
`, []link{
			{ID: "lan", Name: "lan", Addresses: []string{"192.0.2.7/24"}, Routes: []route{{To: "10.0.0.0/8", Via: "192.0.2.9"}, {To: "172.16.0.0/12", Via: "192.0.2.9", Metric: 3}, {To: "198.51.100.0/24", Via: "192.0.2.8", Metric: 4}},
				Nameservers: []string{"192.0.2.2"}, Search: []string{"a.example", "b.example"}},
			{ID: "wrong", Name: "wrong"},
		}, nil, `network-config: ib0: type "infiniband" is not supported: must be physical, bond, bridge, vlan, nameserver or route
network-config: wrong: ParseAddr("192.0.2.300/24"): IPv4 field has value >255
network-config: route to 203.0.113.0/24: no interface has an address in the network of the gateway "203.0.113.1"`},
		{"version 1, made of others", `version: 1
config:
- {type: physical, name: eth0, mac_address: "52:54:00:12:34:00"}
- {type: physical, name: eth1, mac_address: "52:54:00:12:34:01"}
- type: bond
  name: bond0
  bond_interfaces: [eth0, eth1]
  params: {bond-mode: active-backup, bond_miimon: 50, bond-downdelay: 200, bond-queue-id: 1}
- {type: vlan, name: bond0.5, vlan_link: bond0, vlan_id: 5, mtu: 1400}
- type: bridge
  name: br0
  bridge_interfaces: [bond0.5]
  params: {bridge_stp: 'off', bridge_fd: 2, bridge_ports: eth9}
  subnets: [{type: static, address: 192.0.2.7/24}]
`, []link{
			{ID: "eth0", MAC: "52:54:00:12:34:00", SetName: "eth0"},
			{ID: "eth1", MAC: "52:54:00:12:34:01", SetName: "eth1"},
			{ID: "bond0", Name: "bond0", Kind: "bond", Over: []string{"eth0", "eth1"}, Parameters: map[string]string{"mode": "active-backup", "mii-monitor-interval": "50", "down-delay": "200"}},
			{ID: "bond0.5", Name: "bond0.5", Kind: "vlan", Over: []string{"bond0"}, VLAN: 5, MTU: 1400},
			{ID: "br0", Name: "br0", Kind: "bridge", Over: []string{"bond0.5"}, Parameters: map[string]string{"stp": "off", "forward-delay": "2"}, Addresses: []string{"192.0.2.7/24"}},
		}, []string{"bond0.params.bond-queue-id", "br0.params.bridge_ports"}, ""},
		{"version 2", `network:
  version: 2
  renderer: networkd
  ethernets:
    b:
      match: {macaddress: "52:54:00:12:34:56", driver: virtio_net}
      set-name: lan0
      addresses: [192.0.2.7/24, "2001:db8::7/64"]
      gateway4: 192.0.2.1
      gateway6: "2001:db8::1"
      mtu: 1400
      nameservers: {addresses: [192.0.2.2], search: [example.com]}
      routes: [{to: default, via: 192.0.2.3, metric: 100}, {to: 10.0.0.0/8, via: 192.0.2.9, on-link: true}, {to: 192.0.2.200, via: 192.0.2.9, table: 7}]
      dhcp4-overrides: {use-dns: false}
    en*: {dhcp4: true, wakeonlan: true}
`, []link{
			{ID: "b", MAC: "52:54:00:12:34:56", Drivers: []string{"virtio_net"}, SetName: "lan0", MTU: 1400, Addresses: []string{"192.0.2.7/24", "2001:db8::7/64"}, Nameservers: []string{"192.0.2.2"}, Search: []string{"example.com"},
				Routes: []route{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "::/0", Via: "2001:db8::1"}, {To: "0.0.0.0/0", Via: "192.0.2.3", Metric: 100}, {To: "10.0.0.0/8", Via: "192.0.2.9"}, {To: "192.0.2.200/32", Via: "192.0.2.9"}}},
			{ID: "en*", Name: "en*", DHCP: true},
		}, []string{"network.ethernets.b.routes[2].table", "network.ethernets.b.dhcp4-overrides", "network.ethernets.en*.wakeonlan"}, ""},
		{"version 2, made of others", `version: 2
ethernets: {eth0: {}, eth1: {macaddress: "52:54:00:00:00:01"}}
bonds: {bond0: {interfaces: [eth0, eth1], parameters: {mode: 802.3ad, lacp-rate: fast, arp-ip-targets: [192.0.2.1, 192.0.2.2], resend-igmp: 2}}}
bridges:
  br0: {interfaces: [v5], dhcp4: yes, parameters: {priority: 7, path-cost: {v5: 9}}}
vlans: {v5: {id: 5, link: bond0}}
tunnels: {t: {}}
`, []link{
			{ID: "eth0", Name: "eth0"},
			{ID: "eth1", Name: "eth1", HardwareAddress: "52:54:00:00:00:01"},
			{ID: "bond0", Name: "bond0", Kind: "bond", Over: []string{"eth0", "eth1"}, Parameters: map[string]string{"mode": "802.3ad", "lacp-rate": "fast", "arp-ip-targets": "192.0.2.1,192.0.2.2"}},
			{ID: "br0", Name: "br0", Kind: "bridge", Over: []string{"v5"}, DHCP: true, Parameters: map[string]string{"stp": "true", "priority": "7"}},
			{ID: "v5", Name: "v5", Kind: "vlan", Over: []string{"bond0"}, VLAN: 5},
		}, []string{"tunnels", "bonds.bond0.parameters.resend-igmp", "bridges.br0.parameters.path-cost"}, ""},
		{"another version", "version: 3", nil, nil, "network-config: version 3: must be 1 or 2"},
		{"a default route without a router", "version: 2\nethernets: {eth0: {routes: [{to: default}]}}", []link{{ID: "eth0", Name: "eth0"}}, nil, "network-config: eth0: a default route needs via"},
		{"no YAML", "version: [", nil, nil, "network-config: yaml: line 2: did not find expected node content"},
		{"another type", "version: 2\nethernets: {eth0: {mtu: many, dhcp4: perhaps}}", []link{{ID: "eth0", Name: "eth0"}}, nil, "network-config: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			in := newInstance()
			in.addNetworkConfig([]byte(test.text))
			text := ""
			if in.networkErr != nil {
				text = in.networkErr.Error()
			}
			if !strings.HasPrefix(text, test.err) || test.err == "" && text != "" {
				t.Errorf("error %q, want %q", text, test.err)
			}
			if diff := cmp.Diff(test.want, in.network); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
			var ignored []string
			for _, key := range test.ignored {
				ignored = append(ignored, fmt.Sprintf("network-config: %q is not supported: remove it, or configure it with ip in an onboot container", key))
			}
			if diff := cmp.Diff(ignored, in.ignored); diff != "" {
				t.Errorf("ignored (-want +got):\n%s", diff)
			}
		})
	}
}

// ownNetwork moves the test to a new network namespace with one interface.
func ownNetwork(t *testing.T, name, mac string) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		need.Missing(t, "no network namespace: %v", err)
	}
	addCard(t, name, mac)
}

// addCard adds an interface to the network namespace of the test.
func addCard(t *testing.T, name, mac string) {
	t.Helper()
	address, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	card := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: address}, Mode: netlink.TUNTAP_MODE_TAP}
	if err := netlink.LinkAdd(card); err != nil {
		need.Missing(t, "no TAP interface: %v", err)
	}
	if err := netlink.LinkSetHardwareAddr(card, address); err != nil {
		t.Fatal(err)
	}
}

func TestConfigure(t *testing.T) {
	ownNetwork(t, "lan0", "52:54:00:12:34:56")
	resolvConf, fragments := filepath.Join(t.TempDir(), "resolv.conf"), filepath.Join(t.TempDir(), "fragments")
	card, err := netlink.LinkByName("lan0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(card); err != nil {
		t.Fatal(err)
	}
	_, all, _ := net.ParseCIDR("::/0")
	if err := netlink.RouteAdd(&netlink.Route{LinkIndex: card.Attrs().Index, Dst: all, Gw: net.ParseIP("fe80::2"), Protocol: unix.RTPROT_RA, Priority: 1024}); err != nil { // as advertised by a router
		t.Fatal(err)
	}
	links := []link{
		{MAC: "52:54:00:12:34:56", MTU: 1400, Addresses: []string{"192.0.2.7/32", "192.0.2.130/25", "2001:db8::7/64"},
			Routes:      []route{{To: "0.0.0.0/0", Via: "198.51.100.1"}, {To: "10.0.0.0/8", Via: "192.0.2.129", Metric: 7}, {To: "203.0.113.0/24"}, {To: "::/0", Via: "fe80::1"}},
			Nameservers: []string{"192.0.2.2", "192.0.2.3"}, Search: []string{"example.com"}},
		{Name: "lan*", Addresses: []string{"192.0.2.131/25"}, Nameservers: []string{"192.0.2.3", "192.0.2.4"}},
		{Name: "nonesuch"},
	}
	for range 2 { // existing configuration stays
		if err := configure(links, resolvConf, fragments); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(resolvConf); err != nil || string(text) != "search example.com\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n" {
		t.Errorf("resolv.conf %q, %v", text, err)
	}
	if card, err = netlink.LinkByName("lan0"); err != nil {
		t.Fatal(err)
	}
	if a := card.Attrs(); a.MTU != 1400 || a.Flags&net.FlagUp == 0 || a.Alias != staticAlias {
		t.Errorf("MTU %d, flags %v, alias %q", a.MTU, a.Flags, a.Alias)
	}
	var addresses, routes []string
	found, err := netlink.AddrList(card, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range found {
		if !a.IP.IsLinkLocalUnicast() {
			addresses = append(addresses, a.IPNet.String())
		}
	}
	if diff := cmp.Diff([]string{"192.0.2.7/32", "192.0.2.130/25", "192.0.2.131/25", "2001:db8::7/64"}, addresses); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	there, err := netlink.RouteList(card, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range there {
		if r.Protocol == unix.RTPROT_STATIC {
			text := r.Dst.String()
			if r.Gw != nil {
				text += " via " + r.Gw.String()
			}
			if r.Priority != 0 {
				text += " metric " + strconv.Itoa(r.Priority)
			}
			routes = append(routes, text)
		}
	}
	if diff := cmp.Diff([]string{"0.0.0.0/0 via 198.51.100.1", "10.0.0.0/8 via 192.0.2.129 metric 7", "203.0.113.0/24", "::/0 via fe80::1 metric 512"}, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	if text, err := os.ReadFile(filepath.Join(fragments, "static")); err != nil || !strings.HasSuffix(string(text), "nameserver 192.0.2.4\n") {
		t.Errorf("for dhcpcd: %q, %v", text, err)
	}
	if err := configure([]link{{MAC: "52:54:00:00:00:00", Addresses: []string{"192.0.2.8/32"}}}, resolvConf, fragments); err == nil ||
		err.Error() != "network interface 52:54:00:00:00:00: no such interface (interfaces: lo , lan0 52:54:00:12:34:56)" {
		t.Errorf("error %v", err)
	}
}

// TestConfigureStacked makes a bridge over two interfaces that swap their names.
// TestBoot makes a bond and a VLAN, which not every kernel has.
func TestConfigureStacked(t *testing.T) {
	ownNetwork(t, "eth0", "52:54:00:12:34:00")
	addCard(t, "eth1", "52:54:00:12:34:01")
	links := []link{
		{ID: "br0", Name: "br0", Kind: kindBridge, Over: []string{"one", "eth0"}, Parameters: map[string]string{"stp": "true", "priority": "4096", "forward-delay": "4"}, Addresses: []string{"192.0.2.7/24"}},
		{ID: "one", MAC: "52:54:00:12:34:00", SetName: "eth1", MTU: 1400},
		{ID: "eth0", MAC: "52:54:00:12:34:01", SetName: "eth0"},
		{ID: "br1", Name: "br1", Kind: kindBridge, DHCP: true},
		{ID: "a", Name: "a", Kind: kindVLAN, Over: []string{"b"}, VLAN: 6},
		{ID: "b", Name: "b", Kind: kindVLAN, Over: []string{"a"}, VLAN: 6},
		{ID: "v7", Name: "v7", Kind: kindVLAN, Over: []string{"nonesuch"}, VLAN: 7},
	}
	for range 2 {
		err := configure(links, filepath.Join(t.TempDir(), "resolv.conf"), t.TempDir())
		want := "network interface v7: nonesuch: Link not found\nnetwork interface a: is below itself: b\nnetwork interface b: is below itself: a"
		if err == nil || err.Error() != want {
			t.Fatalf("error %v, want %s", err, want)
		}
	}
	get := func(name string) netlink.Link {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	bridge := get("br0").Attrs()
	for name, mac := range map[string]string{"eth1": "52:54:00:12:34:00", "eth0": "52:54:00:12:34:01"} {
		card := get(name).Attrs()
		if card.HardwareAddr.String() != mac || card.MasterIndex != bridge.Index || card.Alias != staticAlias || card.Flags&net.FlagUp == 0 {
			t.Errorf("interface %+v", card)
		}
	}
	if a, b := bridge.Alias, get("br1").Attrs().Alias; a != staticAlias || b != dhcpAlias {
		t.Errorf("aliases %q, %q", a, b)
	}
	for file, want := range map[string]string{"stp_state": "1", "priority": "4096", "forward_delay": "400"} {
		out, err := exec.Command("unshare", "--mount", "sh", "-c", "mount -t sysfs sysfs /sys && cat /sys/class/net/br0/bridge/"+file).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s of the bridge: %q, %v, want %s", file, out, err, want)
		}
	}
}

func TestBond(t *testing.T) {
	lower := []netlink.Link{&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 3}}, &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 4}}}
	made, err := (&link{Kind: kindBond, Name: "bond0", Over: []string{"a", "b"}, Parameters: map[string]string{
		"mode": "4", "lacp-rate": "fast", "primary": "b", "arp-ip-targets": "192.0.2.1,192.0.2.2", "all-slaves-active": "true",
	}}).device(lower)
	if err != nil {
		t.Fatal(err)
	}
	bond := made.(*netlink.Bond)
	if bond.Mode != netlink.BOND_MODE_802_3AD || bond.LacpRate != netlink.BOND_LACP_RATE_FAST || bond.Primary != 4 || bond.AllSlavesActive != 1 ||
		len(bond.ArpIpTargets) != 2 || bond.Miimon != 100 {
		t.Errorf("bond %+v", bond)
	}
	for key, value := range map[string]string{"mode": "fast", "primary": "c", "up-delay": "-1", "arp-ip-targets": "x", "all-slaves-active": "7"} {
		_, err := (&link{Kind: kindBond, Name: "bond0", Over: []string{"a", "b"}, Parameters: map[string]string{key: value}}).device(lower)
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s %s: error %v", key, value, err)
		}
	}
}
