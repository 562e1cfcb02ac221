package main

import (
	"errors"
	"fmt"
	"strings"
)

// A deviceV2 has the keys of all devices of version 2.
type deviceV2 struct {
	Renderer    string   `yaml:"renderer"`
	DHCP4       boolean  `yaml:"dhcp4"`
	DHCP6       boolean  `yaml:"dhcp6"`
	Addresses   []string `yaml:"addresses"`
	Gateway4    string   `yaml:"gateway4"`
	Gateway6    string   `yaml:"gateway6"`
	MTU         int      `yaml:"mtu"`
	MAC         string   `yaml:"macaddress"`
	Optional    boolean  `yaml:"optional"` // nothing waits for an interface
	Nameservers struct {
		Addresses texts `yaml:"addresses"`
		Search    texts `yaml:"search"`
	} `yaml:"nameservers"`
	Routes []routeV2 `yaml:"routes"`
}

type routeV2 struct {
	To     string  `yaml:"to"`
	Via    string  `yaml:"via"`
	Metric int     `yaml:"metric"`
	OnLink boolean `yaml:"on-link"` // found by itself
}

type ethernetV2 struct {
	deviceV2 `yaml:",inline"`
	Match    struct {
		Name       string `yaml:"name"`
		MACAddress string `yaml:"macaddress"`
		Driver     texts  `yaml:"driver"`
	} `yaml:"match"`
	SetName string `yaml:"set-name"`
}

// A stackedV2 is a bond or a bridge.
type stackedV2 struct {
	deviceV2   `yaml:",inline"`
	Interfaces texts      `yaml:"interfaces"`
	Parameters parameters `yaml:"parameters"`
}

type vlanV2 struct {
	deviceV2 `yaml:",inline"`
	ID       int    `yaml:"id"`
	Link     string `yaml:"link"`
}

func (c *networkConfig) linksV2() (links []link, err error) {
	var failed []error
	add := func(id string, d *deviceV2, l link) {
		l.ID = id
		failed = append(failed, d.addTo(&l))
		links = append(links, l)
	}
	for _, id := range sortedKeys(c.Ethernets) {
		e := c.Ethernets[id]
		l := link{MAC: e.Match.MACAddress, Name: e.Match.Name, Drivers: e.Match.Driver, SetName: e.SetName}
		if l.MAC == "" && l.Name == "" && l.Drivers == nil {
			l.Name = id
		}
		add(id, &e.deviceV2, l)
	}
	for _, kind := range []struct {
		name, key string
		devices   map[string]stackedV2
	}{{kindBond, "bonds", c.Bonds}, {kindBridge, "bridges", c.Bridges}} {
		for _, id := range sortedKeys(kind.devices) {
			s := kind.devices[id]
			l := link{Kind: kind.name, Name: id, Over: s.Interfaces}
			var ignored []string
			l.Parameters, ignored = s.Parameters.take(kind.name, nil)
			for _, key := range ignored {
				c.ignored = append(c.ignored, kind.key+"."+id+".parameters."+key)
			}
			if kind.name == kindBridge && l.Parameters["stp"] == "" {
				l.Parameters["stp"] = "true" // the default of version 2
			}
			add(id, &s.deviceV2, l)
		}
	}
	for _, id := range sortedKeys(c.VLANs) {
		v := c.VLANs[id]
		add(id, &v.deviceV2, link{Kind: kindVLAN, Name: id, VLAN: v.ID, Over: []string{v.Link}})
	}
	return links, errors.Join(failed...)
}

// addTo adds what all devices have to a link.
func (d *deviceV2) addTo(l *link) error {
	l.MTU, l.HardwareAddress, l.DHCP = d.MTU, d.MAC, bool(d.DHCP4 || d.DHCP6)
	l.Addresses, l.Nameservers, l.Search = d.Addresses, d.Nameservers.Addresses, d.Nameservers.Search
	l.addGateway(d.Gateway4)
	l.addGateway(d.Gateway6)
	var failed []error
	for _, r := range d.Routes {
		if r.To == "default" {
			if r.Via == "" {
				failed = append(failed, fmt.Errorf("%s: a default route needs via", l.ID))
				continue
			}
			r.To = defaultNetwork(r.Via)
		}
		if !strings.Contains(r.To, "/") { // a host
			r.To += map[bool]string{true: "/128", false: "/32"}[strings.Contains(r.To, ":")]
		}
		l.Routes = append(l.Routes, route{To: r.To, Via: r.Via, Metric: r.Metric})
	}
	return errors.Join(failed...)
}
