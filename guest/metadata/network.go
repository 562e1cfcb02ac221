package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A link is the configuration of one network interface. It is written to the
// file network.json.
type link struct {
	ID      string   `json:"id,omitempty"` // name for other links; "" if none refers to it
	MAC     string   `json:"mac,omitempty"`
	Name    string   `json:"name,omitempty"`     // of the interface, or a pattern for path.Match; only without MAC
	Drivers []string `json:"drivers,omitempty"`  // patterns for the driver; one must match
	SetName string   `json:"set_name,omitempty"` // new name of the interface

	// What the interface is made of, if it does not exist yet.
	Kind       string            `json:"kind,omitempty"` // kindBond, kindBridge or kindVLAN
	Over       []string          `json:"over,omitempty"` // IDs or names of the interfaces below it
	VLAN       int               `json:"vlan,omitempty"`
	Parameters map[string]string `json:"parameters,omitempty"` // of a bond or bridge, by the keys of version 2 of cloud-init's format

	HardwareAddress string   `json:"hardware_address,omitempty"` // new MAC address
	MTU             int      `json:"mtu,omitempty"`
	DHCP            bool     `json:"dhcp,omitempty"` // whether dhcpcd configures it, too
	Addresses       []string `json:"addresses"`      // with prefix lengths; none if DHCP or router advertisements assign them
	Routes          []route  `json:"routes,omitempty"`
	Nameservers     []string `json:"nameservers,omitempty"`
	Search          []string `json:"search,omitempty"` // domains
}

// A route leads to a network, with its prefix length, through a router. Without
// a router the network is on the link.
type route struct {
	To     string `json:"to"`
	Via    string `json:"via,omitempty"`
	Metric int    `json:"metric,omitempty"`
}

// addGateway adds a default route, unless the gateway is "".
func (l *link) addGateway(gateway string) {
	if gateway != "" {
		l.Routes = append(l.Routes, route{To: defaultNetwork(gateway), Via: gateway})
	}
}

// defaultNetwork returns the network of all addresses of the version of a
// gateway.
func defaultNetwork(gateway string) string {
	if strings.Contains(gateway, ":") {
		return "::/0"
	}
	return "0.0.0.0/0"
}

// Aliases of interfaces, which the package dhcpcd reads: it ignores static ones,
// and bridges that are not for DHCP.
const (
	staticAlias = "static"
	dhcpAlias   = "dhcp"
)

// ipv6Metric is the metric of IPv6 routes without one. With 1024, the default
// of the kernel, they would conflict with advertised routes, and the first one
// would stay. With this metric, configured routes take precedence.
const ipv6Metric = 512

// resolvFragments is the directory of dhcpcd with a file for each lease, of which
// it makes resolv.conf.
const resolvFragments = "/run/dhcpcd/resolv.conf"

// configure makes bonds, bridges and VLANs, sets names, addresses and routes of
// the links, and writes the name servers to a file in the form of
// resolv.conf(5). It keeps existing configuration. It requires CAP_NET_ADMIN.
func configure(links []link, resolvConf, fragments string) error {
	// Use only the routing socket: other sockets may need modules that the
	// kernel does not have.
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer kernel.Close()
	n := newNetwork(kernel, links)
	failed := append(n.findAll(), n.renameAll()...)
	failed = append(failed, n.createAll()...)
	var search, servers []string
	for i := range links {
		l := &links[i]
		nic := n.nics[i]
		if nic == nil {
			continue
		}
		if err := l.configure(kernel, nic, n.isMember(l)); err != nil {
			failed = append(failed, l.failure(err))
			continue
		}
		search, servers = appendNew(search, l.Search), appendNew(servers, l.Nameservers)
	}
	if len(servers) > 0 {
		failed = append(failed, writeResolvConf(resolvConf, fragments, search, servers))
	}
	return errors.Join(failed...)
}

func writeResolvConf(file, fragments string, search, servers []string) error {
	var text strings.Builder
	if len(search) > 0 {
		text.WriteString("search " + strings.Join(search, " ") + "\n")
	}
	for _, server := range servers {
		text.WriteString("nameserver " + server + "\n")
	}
	// Write in place, because containers bind the file.
	err := os.WriteFile(file, []byte(text.String()), 0o644)
	// dhcpcd adds these servers to those of its leases.
	if invalid := os.MkdirAll(fragments, 0o755); invalid != nil {
		return errors.Join(err, invalid)
	}
	return errors.Join(err, os.WriteFile(filepath.Join(fragments, staticAlias), []byte(text.String()), 0o644))
}

func (l *link) failure(err error) error {
	return fmt.Errorf("network interface %s: %w", cmp.Or(l.MAC, l.Name, l.ID), err)
}

// configure sets the addresses and routes of one link.
func (l *link) configure(kernel *netlink.Handle, nic netlink.Link, member bool) error {
	alias := staticAlias
	if l.DHCP && !member {
		alias = dhcpAlias
	}
	if err := kernel.LinkSetAlias(nic, alias); err != nil {
		return err
	}
	if l.HardwareAddress != "" {
		address, err := net.ParseMAC(l.HardwareAddress)
		if err != nil {
			return err
		}
		if err := kernel.LinkSetHardwareAddr(nic, address); err != nil {
			return fmt.Errorf("MAC address %s: %w", address, err)
		}
	}
	if l.MTU != 0 {
		if err := kernel.LinkSetMTU(nic, l.MTU); err != nil {
			return fmt.Errorf("MTU %d: %w", l.MTU, err)
		}
	}
	if err := kernel.LinkSetUp(nic); err != nil {
		return err
	}
	var prefixes []netip.Prefix
	for _, text := range l.Addresses {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return err
		}
		prefixes = append(prefixes, prefix)
		address, err := netlink.ParseAddr(text)
		if err != nil {
			return err
		}
		if err := kernel.AddrReplace(nic, address); err != nil {
			return fmt.Errorf("address %s: %w", text, err)
		}
	}
	for _, r := range l.Routes {
		if err := r.add(kernel, nic, prefixes); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	return nil
}

func (r *route) add(kernel *netlink.Handle, nic netlink.Link, links []netip.Prefix) error {
	to, err := netlink.ParseIPNet(r.To)
	if err != nil {
		return err
	}
	metric := r.Metric
	if metric == 0 && to.IP.To4() == nil {
		metric = ipv6Metric
	}
	added := &netlink.Route{LinkIndex: nic.Attrs().Index, Dst: to, Priority: metric, Protocol: unix.RTPROT_STATIC}
	if r.Via == "" {
		added.Scope = netlink.SCOPE_LINK
		return kernel.RouteAdd(added)
	}
	via, err := netip.ParseAddr(r.Via)
	if err != nil {
		return err
	}
	added.Gw = via.AsSlice()
	// Clouds have routers outside the prefixes of the addresses. Such a prefix
	// may contain a single address.
	onLink := via.IsLinkLocalUnicast()
	for _, prefix := range links {
		onLink = onLink || prefix.Contains(via)
	}
	if !onLink {
		added.SetFlag(netlink.FLAG_ONLINK)
	}
	return kernel.RouteAdd(added)
}

// appendNew appends the texts that to does not contain yet.
func appendNew(to, texts []string) []string {
	for _, text := range texts {
		if !slices.Contains(to, text) {
			to = append(to, text)
		}
	}
	return to
}
