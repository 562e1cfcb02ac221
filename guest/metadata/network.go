package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A link is the configuration of one network interface. It is written to the
// file network.json.
type link struct {
	MAC         string   `json:"mac,omitempty"`
	Name        string   `json:"name,omitempty"` // of the interface, or a pattern for path.Match; only without MAC
	Bond        string   `json:"bond,omitempty"` // bond that the interface belongs to and that has the addresses
	MTU         int      `json:"mtu,omitempty"`
	Addresses   []string `json:"addresses"` // with prefix lengths; none if DHCP or router advertisements assign them
	Routes      []route  `json:"routes,omitempty"`
	Nameservers []string `json:"nameservers,omitempty"`
	Search      []string `json:"search,omitempty"` // domains
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

// staticAlias is the alias of interfaces that this program configures. The
// package dhcpcd ignores them.
const staticAlias = "static"

// ipv6Metric is the metric of IPv6 routes without one. With 1024, the default
// of the kernel, they would conflict with advertised routes, and the first one
// would stay. With this metric, configured routes take precedence.
const ipv6Metric = 512

// configure sets the addresses and routes of the links, and writes the name
// servers to a file in the form of resolv.conf(5). It ignores links without
// addresses, and keeps existing configuration. It requires CAP_NET_ADMIN.
func configure(links []link, resolvConf string) error {
	var failed []error
	var search, servers []string
	for _, l := range links {
		if len(l.Addresses) == 0 {
			continue
		}
		if err := l.configure(); err != nil {
			failed = append(failed, fmt.Errorf("network interface %s: %w", cmp.Or(l.MAC, l.Name), err))
			continue
		}
		search, servers = appendNew(search, l.Search), appendNew(servers, l.Nameservers)
	}
	if len(servers) > 0 {
		var text strings.Builder
		if len(search) > 0 {
			text.WriteString("search " + strings.Join(search, " ") + "\n")
		}
		for _, server := range servers {
			text.WriteString("nameserver " + server + "\n")
		}
		// Write in place, because containers bind the file.
		failed = append(failed, os.WriteFile(resolvConf, []byte(text.String()), 0o644))
	}
	return errors.Join(failed...)
}

// configure sets the addresses and routes of one link.
func (l *link) configure() error {
	if l.Bond != "" {
		return fmt.Errorf("belongs to the bond %s: bonds are not supported", l.Bond)
	}
	// Use only the routing socket: other sockets may need modules that the
	// kernel does not have.
	kernel, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer kernel.Close()
	nic, err := l.find(kernel)
	if err != nil {
		return err
	}
	if err := kernel.LinkSetAlias(nic, staticAlias); err != nil {
		return err
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

// find returns the interface. Interfaces that are stacked on another one share
// its MAC and come after it.
func (l *link) find(kernel *netlink.Handle) (netlink.Link, error) {
	nics, err := kernel.LinkList()
	if err != nil {
		return nil, err
	}
	var known []string
	for _, nic := range nics {
		attrs := nic.Attrs()
		if l.MAC != "" && strings.EqualFold(attrs.HardwareAddr.String(), l.MAC) {
			return nic, nil
		}
		if ok, err := path.Match(l.Name, attrs.Name); err != nil || ok && l.MAC == "" {
			return nic, err
		}
		known = append(known, attrs.Name+" "+attrs.HardwareAddr.String())
	}
	return nil, fmt.Errorf("no such interface (interfaces: %s)", strings.Join(known, ", "))
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
