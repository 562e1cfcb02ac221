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

// link is the configuration of one network interface, for providers that give one. It is in the file network.json.
type link struct {
	MAC         string   `json:"mac,omitempty"`
	Name        string   `json:"name,omitempty"` // of the interface, or a pattern as in path.Match, where the MAC is not given
	Bond        string   `json:"bond,omitempty"` // the bond that the interface belongs to, with the addresses
	MTU         int      `json:"mtu,omitempty"`
	Addresses   []string `json:"addresses"` // with the length of their prefixes; none if DHCP or the network itself gives them
	Routes      []route  `json:"routes,omitempty"`
	Nameservers []string `json:"nameservers,omitempty"`
	Search      []string `json:"search,omitempty"` // domains
}

// route leads to a network, with the length of its prefix, by a router; without one the network is on the link.
type route struct {
	To     string `json:"to"`
	Via    string `json:"via,omitempty"`
	Metric int    `json:"metric,omitempty"`
}

// addGateway adds the route to everything that has no other, unless there is no gateway.
func (l *link) addGateway(gateway string) {
	if gateway != "" {
		l.Routes = append(l.Routes, route{To: everywhere(gateway), Via: gateway})
	}
}

// everywhere is the network of all addresses of a gateway's kind.
func everywhere(gateway string) string {
	if strings.Contains(gateway, ":") {
		return "::/0"
	}
	return "0.0.0.0/0"
}

// staticAlias is the alias of interfaces that have been configured here: the package dhcpcd leaves those alone.
const staticAlias = "static"

// ipv6Metric is the metric of IPv6 routes that have none. The kernel would take 1024, which is also what it gives to the routes that routers
// advertise: whichever came first would be the only one, where now those that were configured go before.
const ipv6Metric = 512

// configure gives the machine's interfaces the addresses and routes of their links, and writes the name servers to a file as in resolv.conf(5). Links
// without addresses are not touched. What is there already stays. It needs CAP_NET_ADMIN.
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
		// In place: containers bind the file itself.
		failed = append(failed, os.WriteFile(resolvConf, []byte(text.String()), 0o644))
	}
	return errors.Join(failed...)
}

func (l *link) configure() error {
	if l.Bond != "" {
		return fmt.Errorf("belongs to %s, and bonds are not made here", l.Bond)
	}
	// Only the socket of routes: others may need modules that the kernel lacks.
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

// find gives the interface. Those that are stacked on another one share its MAC and come after it.
func (l *link) find(kernel *netlink.Handle) (netlink.Link, error) {
	nics, err := kernel.LinkList()
	if err != nil {
		return nil, err
	}
	var there []string
	for _, nic := range nics {
		attrs := nic.Attrs()
		if l.MAC != "" && strings.EqualFold(attrs.HardwareAddr.String(), l.MAC) {
			return nic, nil
		}
		if ok, err := path.Match(l.Name, attrs.Name); err != nil || ok && l.MAC == "" {
			return nic, err
		}
		there = append(there, attrs.Name+" "+attrs.HardwareAddr.String())
	}
	return nil, fmt.Errorf("not on this machine; there are %s", strings.Join(there, ", "))
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
	// Clouds have routers outside of the addresses' prefixes, which may be of a single address.
	onLink := via.IsLinkLocalUnicast()
	for _, prefix := range links {
		onLink = onLink || prefix.Contains(via)
	}
	if !onLink {
		added.SetFlag(netlink.FLAG_ONLINK)
	}
	return kernel.RouteAdd(added)
}

// appendNew appends the texts that are not there yet.
func appendNew(to, texts []string) []string {
	for _, text := range texts {
		if !slices.Contains(to, text) {
			to = append(to, text)
		}
	}
	return to
}
