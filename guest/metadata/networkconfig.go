package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// networkConfig is the network configuration of cloud-init, in both of its
// versions:
// https://docs.cloud-init.io/en/latest/reference/network-config-format-v1.html
// https://docs.cloud-init.io/en/latest/reference/network-config-format-v2.html
type networkConfig struct {
	Network *networkConfig // as in netplan
	Version int
	Config  []struct { // version 1
		Type, Name string
		MAC        string `yaml:"mac_address"`
		MTU        int
		Subnets    []struct {
			Type, Address, Netmask, Gateway string
			Nameservers                     texts `yaml:"dns_nameservers"`
			Search                          texts `yaml:"dns_search"`
			Routes                          []routeV1
		}
		Address texts // of a nameserver
		Search  texts
	}
	Ethernets map[string]struct { // version 2
		Match       struct{ MACAddress, Name string }
		MTU         int
		Addresses   []string
		Gateway4    string
		Gateway6    string
		Nameservers struct{ Addresses, Search []string }
		Routes      []route
	}
	Bonds, Bridges, VLANs map[string]any
}

type routeV1 struct {
	Network, Destination, Netmask, Gateway string
	Metric                                 int
}

// texts is a list of texts, or a single one.
type texts []string

func (t *texts) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return node.Decode((*[]string)(t))
	}
	var text string
	err := node.Decode(&text)
	if text != "" {
		*t = texts{text}
	}
	return err
}

// parseNetworkConfig returns the links of a configuration. If parts are invalid
// or not supported, it returns the others with an error.
func parseNetworkConfig(text []byte) ([]link, error) {
	var config networkConfig
	if err := yaml.Unmarshal(text, &config); err != nil {
		return nil, fmt.Errorf("network-config: %w", err)
	}
	return config.links()
}

func (c *networkConfig) links() ([]link, error) {
	if c.Network != nil {
		return c.Network.links()
	}
	var links []link
	var err error
	switch c.Version {
	case 1:
		links, err = c.linksV1()
	case 2:
		links, err = c.linksV2()
	default:
		err = fmt.Errorf("version %d: must be 1 or 2", c.Version)
	}
	if err != nil {
		err = fmt.Errorf("network-config: %w", err)
	}
	return links, err
}

func (c *networkConfig) linksV1() (links []link, err error) {
	var failed []error
	var nameservers, search []string
	for _, device := range c.Config {
		switch device.Type {
		case "nameserver":
			nameservers, search = append(nameservers, device.Address...), append(search, device.Search...)
			continue
		case "physical":
		default:
			failed = append(failed, fmt.Errorf("%s: type %s is not supported", device.Name, device.Type))
			continue
		}
		l := link{MAC: device.MAC, MTU: device.MTU}
		if l.MAC == "" {
			l.Name = device.Name
		}
		for _, subnet := range device.Subnets {
			if subnet.Type != "static" && subnet.Type != "static6" {
				continue
			}
			address, err := prefixOf(subnet.Address, subnet.Netmask)
			if err != nil {
				failed = append(failed, fmt.Errorf("%s: %w", device.Name, err))
				continue
			}
			l.Addresses = append(l.Addresses, address)
			l.addGateway(subnet.Gateway)
			for _, r := range subnet.Routes {
				to, err := prefixOf(first(r.Network, r.Destination), r.Netmask)
				if err != nil {
					failed = append(failed, fmt.Errorf("%s: route: %w", device.Name, err))
					continue
				}
				l.Routes = append(l.Routes, route{To: to, Via: r.Gateway, Metric: r.Metric})
			}
			l.Nameservers, l.Search = append(l.Nameservers, subnet.Nameservers...), append(l.Search, subnet.Search...)
		}
		links = append(links, l)
	}
	for i := range links {
		links[i].Nameservers, links[i].Search = append(links[i].Nameservers, nameservers...), append(links[i].Search, search...)
	}
	return links, errors.Join(failed...)
}

func (c *networkConfig) linksV2() (links []link, err error) {
	var failed []error
	for _, id := range slices.Sorted(maps.Keys(c.Ethernets)) {
		e := c.Ethernets[id]
		l := link{MAC: e.Match.MACAddress, MTU: e.MTU, Addresses: e.Addresses, Nameservers: e.Nameservers.Addresses, Search: e.Nameservers.Search}
		if l.MAC == "" {
			l.Name = first(e.Match.Name, id)
		}
		l.addGateway(e.Gateway4)
		l.addGateway(e.Gateway6)
		for _, r := range e.Routes {
			if r.To == "default" {
				if r.Via == "" {
					failed = append(failed, fmt.Errorf("%s: a default route needs via", id))
					continue
				}
				r.To = defaultNetwork(r.Via)
			}
			l.Routes = append(l.Routes, r)
		}
		links = append(links, l)
	}
	for kind, devices := range map[string]map[string]any{"bonds": c.Bonds, "bridges": c.Bridges, "vlans": c.VLANs} {
		if len(devices) > 0 {
			failed = append(failed, fmt.Errorf("%s are not supported", kind))
		}
	}
	return links, errors.Join(failed...)
}

// prefixOf returns an address in the form 192.0.2.7/24. The mask is a netmask,
// a prefix length, or "" if the address contains the length.
func prefixOf(address, mask string) (string, error) {
	if prefix, err := netip.ParsePrefix(address); err == nil {
		return prefix.String(), nil
	}
	if bits, err := strconv.Atoi(mask); err == nil {
		prefix, err := netip.ParsePrefix(fmt.Sprintf("%s/%d", address, bits))
		return prefix.String(), err
	}
	return withMask(address, mask)
}
