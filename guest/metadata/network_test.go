package main

import (
	"net"
	"os"
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
			{MAC: "bc:24:11:00:00:01", MTU: 9000, Addresses: []string{"192.0.2.7/24", "2001:db8::7/64"}, Routes: []route{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "::/0", Via: "fe80::1"}},
				Nameservers: []string{"192.0.2.2", "2001:db8::2"}, Search: []string{"example.com"}},
			{Name: "eth1", Nameservers: []string{"192.0.2.2", "2001:db8::2"}, Search: []string{"example.com"}},
		}, ""},
		{"version 1, all that a subnet may have", `version: 1
config:
- type: physical
  name: lan
  subnets:
  - {type: static, address: 192.0.2.7, netmask: 24, dns_nameservers: 192.0.2.2, dns_search: [a.example, b.example],
     routes: [{network: 10.0.0.0, netmask: 255.0.0.0, gateway: 192.0.2.9}, {destination: 172.16.0.0/12, gateway: 192.0.2.9, metric: 3}]}
- {type: vlan, name: eth0.5, vlan_link: eth0, vlan_id: 5}
- type: physical
  name: wrong
  subnets: [{type: static, address: 192.0.2.300/24}]
`, []link{
			{Name: "lan", Addresses: []string{"192.0.2.7/24"}, Routes: []route{{To: "10.0.0.0/8", Via: "192.0.2.9"}, {To: "172.16.0.0/12", Via: "192.0.2.9", Metric: 3}},
				Nameservers: []string{"192.0.2.2"}, Search: []string{"a.example", "b.example"}},
			{Name: "wrong"},
		}, `network-config: eth0.5: type vlan is not supported
wrong: ParseAddr("192.0.2.300/24"): IPv4 field has value >255`},
		{"version 2", `network:
  version: 2
  ethernets:
    b:
      match: {macaddress: "52:54:00:12:34:56", driver: virtio_net}
      set-name: lan0
      addresses: [192.0.2.7/24, "2001:db8::7/64"]
      gateway4: 192.0.2.1
      gateway6: "2001:db8::1"
      mtu: 1400
      nameservers: {addresses: [192.0.2.2], search: [example.com]}
      routes: [{to: default, via: 192.0.2.3, metric: 100}, {to: 10.0.0.0/8, via: 192.0.2.9}]
    en*: {dhcp4: true}
`, []link{
			{MAC: "52:54:00:12:34:56", MTU: 1400, Addresses: []string{"192.0.2.7/24", "2001:db8::7/64"}, Nameservers: []string{"192.0.2.2"}, Search: []string{"example.com"},
				Routes: []route{{To: "0.0.0.0/0", Via: "192.0.2.1"}, {To: "::/0", Via: "2001:db8::1"}, {To: "0.0.0.0/0", Via: "192.0.2.3", Metric: 100}, {To: "10.0.0.0/8", Via: "192.0.2.9"}}},
			{Name: "en*"},
		}, ""},
		{"version 2, more than network cards", "version: 2\nethernets: {eth0: {addresses: [192.0.2.7/24]}}\nbonds: {bond0: {interfaces: [eth0]}}\n",
			[]link{{Name: "eth0", Addresses: []string{"192.0.2.7/24"}}}, "network-config: bonds are not supported"},
		{"another version", "version: 3", nil, "network-config: version 3: must be 1 or 2"},
		{"a default route without a router", "version: 2\nethernets: {eth0: {routes: [{to: default}]}}", []link{{Name: "eth0"}}, "network-config: eth0: a default route needs via"},
	} {
		t.Run(test.name, func(t *testing.T) {
			links, err := parseNetworkConfig([]byte(test.text))
			text := ""
			if err != nil {
				text = err.Error()
			}
			if text != test.err {
				t.Errorf("error %q, want %q", text, test.err)
			}
			if diff := cmp.Diff(test.want, links); diff != "" {
				t.Errorf("links (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := parseNetworkConfig([]byte("version: [")); err == nil || !strings.HasPrefix(err.Error(), "network-config: ") {
		t.Errorf("no YAML: %v", err)
	}
}

// ownNetwork moves the test to a new network namespace with one interface.
func ownNetwork(t *testing.T, name, mac string) {
	t.Helper()
	runtime.LockOSThread() // for good: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		need.Missing(t, "no network namespace: %v", err)
	}
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
	resolvConf := filepath.Join(t.TempDir(), "resolv.conf")
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
		if err := configure(links, resolvConf); err != nil {
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
	if err := configure([]link{{MAC: "52:54:00:00:00:00", Addresses: []string{"192.0.2.8/32"}}, {Bond: "bond0", MAC: "52:54:00:12:34:56", Addresses: []string{"192.0.2.8/32"}}}, resolvConf); err == nil ||
		err.Error() != "network interface 52:54:00:00:00:00: no such interface (interfaces: lo , lan0 52:54:00:12:34:56)\n"+
			"network interface 52:54:00:12:34:56: belongs to the bond bond0: bonds are not supported" {
		t.Errorf("error %v", err)
	}
}
