package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// A deviceV1 is an entry of version 1.
type deviceV1 struct {
	Type    string     `yaml:"type"`
	Name    string     `yaml:"name"`
	MAC     string     `yaml:"mac_address"`
	MTU     int        `yaml:"mtu"`
	Subnets []subnetV1 `yaml:"subnets"`

	BondInterfaces   texts      `yaml:"bond_interfaces"`
	BridgeInterfaces texts      `yaml:"bridge_interfaces"`
	Params           parameters `yaml:"params"`
	VLANLink         string     `yaml:"vlan_link"`
	VLANID           int        `yaml:"vlan_id"`

	Address   texts  `yaml:"address"` // of name servers
	Search    texts  `yaml:"search"`
	Interface string `yaml:"interface"` // that has the name servers; all by default

	routeV1 `yaml:",inline"` // a route
}

type subnetV1 struct {
	Type        string    `yaml:"type"`
	Control     string    `yaml:"control"`
	Address     string    `yaml:"address"`
	Netmask     string    `yaml:"netmask"`
	Broadcast   string    `yaml:"broadcast"`
	Gateway     string    `yaml:"gateway"`
	Nameservers texts     `yaml:"dns_nameservers"`
	Search      texts     `yaml:"dns_search"`
	Routes      []routeV1 `yaml:"routes"`
}

type routeV1 struct {
	Network     string `yaml:"network"`
	Destination string `yaml:"destination"`
	Netmask     string `yaml:"netmask"`
	Gateway     string `yaml:"gateway"`
	Metric      int    `yaml:"metric"`
}

func (r *routeV1) route() (route, error) {
	to, err := prefixOf(first(r.Network, r.Destination), r.Netmask)
	return route{To: to, Via: r.Gateway, Metric: r.Metric}, err
}

func (c *networkConfig) linksV1() (links []link, err error) {
	var failed []error
	var servers, routes []*deviceV1
	for i := range c.Config {
		d := &c.Config[i]
		switch d.Type {
		case "nameserver":
			servers = append(servers, d)
		case "route":
			routes = append(routes, d)
		default:
			l, err := c.linkV1(d)
			failed = append(failed, err)
			if l != nil {
				links = append(links, *l)
			}
		}
	}
	for i := range links {
		for _, d := range servers {
			if d.Interface == "" || d.Interface == links[i].ID {
				links[i].Nameservers, links[i].Search = append(links[i].Nameservers, d.Address...), append(links[i].Search, d.Search...)
			}
		}
	}
	for _, d := range routes {
		r, err := d.route()
		if l := linkTo(links, r.Via); err == nil && l != nil {
			l.Routes = append(l.Routes, r)
		} else {
			failed = append(failed, errors.Join(err, fmt.Errorf("route to %s: no interface has an address in the network of the gateway %q", r.To, r.Via)))
		}
	}
	return links, errors.Join(failed...)
}

// linkTo returns the link in whose network a gateway is.
func linkTo(links []link, gateway string) *link {
	via, err := netip.ParseAddr(gateway)
	for i := range links {
		for _, address := range links[i].Addresses {
			if prefix, invalid := netip.ParsePrefix(address); err == nil && invalid == nil && prefix.Contains(via) {
				return &links[i]
			}
		}
	}
	return nil
}

// paramsV1 are the names in version 2 of parameters in version 1, which are
// those of ifupdown.
var paramsV1 = map[string]string{
	"bond-mode": "mode", "bond-miimon": "mii-monitor-interval", "bond-lacp-rate": "lacp-rate", "bond-xmit-hash-policy": "transmit-hash-policy",
	"bond-min-links": "min-links", "bond-ad-select": "ad-select", "bond-all-slaves-active": "all-slaves-active", "bond-primary": "primary",
	"bond-updelay": "up-delay", "bond-downdelay": "down-delay", "bond-arp-interval": "arp-interval", "bond-arp-ip-target": "arp-ip-targets",
	"bond-arp-validate": "arp-validate", "bond-arp-all-targets": "arp-all-targets", "bond-fail-over-mac": "fail-over-mac-policy",
	"bond-num-grat-arp": "gratuitous-arp", "bond-packets-per-slave": "packets-per-slave", "bond-primary-reselect": "primary-reselect-policy",
	"bond-lp-interval": "learn-packet-interval",
	"bridge-stp":       "stp", "bridge-ageing": "ageing-time", "bridge-bridgeprio": "priority", "bridge-fd": "forward-delay",
	"bridge-hello": "hello-time", "bridge-maxage": "max-age",
}

// linkV1 returns the link of an interface, or nil if it is invalid.
func (c *networkConfig) linkV1(d *deviceV1) (*link, error) {
	l := &link{ID: d.Name, MTU: d.MTU}
	switch d.Type {
	case "physical":
		// The interface with this address gets the name.
		if l.MAC = d.MAC; l.MAC != "" {
			l.SetName = d.Name
		} else {
			l.Name = d.Name
		}
	case kindBond, kindBridge:
		l.Kind, l.Name, l.HardwareAddress = d.Type, d.Name, d.MAC
		l.Over = append(d.BondInterfaces, d.BridgeInterfaces...)
		var ignored []string
		l.Parameters, ignored = d.Params.take(d.Type, paramsV1)
		for _, key := range ignored {
			c.ignored = append(c.ignored, d.Name+".params."+key)
		}
	case kindVLAN:
		l.Kind, l.Name, l.VLAN, l.Over, l.HardwareAddress = kindVLAN, d.Name, d.VLANID, []string{d.VLANLink}, d.MAC
	default:
		return nil, fmt.Errorf("%s: type %q is not supported: must be physical, bond, bridge, vlan, nameserver or route", d.Name, d.Type)
	}
	var failed []error
	for _, s := range d.Subnets {
		failed = append(failed, s.addTo(l)...)
	}
	return l, errors.Join(failed...)
}

// addTo adds a subnet to a link.
func (s *subnetV1) addTo(l *link) (failed []error) {
	fail := func(err error) { failed = append(failed, fmt.Errorf("%s: %w", l.ID, err)) }
	switch {
	case strings.HasPrefix(s.Type, "dhcp"), strings.HasPrefix(s.Type, "ipv6_"):
		l.DHCP = true
	case s.Type == "static", s.Type == "static6":
		address, err := prefixOf(s.Address, s.Netmask)
		if err != nil {
			fail(err)
			return failed
		}
		l.Addresses = append(l.Addresses, address)
		l.addGateway(s.Gateway)
	case s.Type == "manual":
	default:
		fail(fmt.Errorf("subnet of type %q is not supported: must be static, static6, dhcp, dhcp4, dhcp6 or manual", s.Type))
	}
	for _, r := range s.Routes {
		added, err := r.route()
		if err != nil {
			fail(fmt.Errorf("route: %w", err))
			continue
		}
		l.Routes = append(l.Routes, added)
	}
	l.Nameservers, l.Search = append(l.Nameservers, s.Nameservers...), append(l.Search, s.Search...)
	return failed
}
