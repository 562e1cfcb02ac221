package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// fetchOpenStack asks the service of Nova.
// https://docs.openstack.org/nova/latest/user/metadata.html
func fetchOpenStack(ctx context.Context, c *client, endpoint string) (*instance, error) {
	return openStack(func(name string) ([]byte, bool, error) {
		return c.get(ctx, endpoint+"/openstack/latest/"+name, nil)
	})
}

// openStack reads the files of openstack/latest, which are the same in the
// service and on a configuration drive.
func openStack(read func(string) ([]byte, bool, error)) (*instance, error) {
	body, ok, err := read("meta_data.json")
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("no openstack/latest/meta_data.json: not OpenStack")
	}
	var meta struct {
		UUID, Hostname   string
		AvailabilityZone string            `json:"availability_zone"`
		ProjectID        string            `json:"project_id"`
		PublicKeys       map[string]string `json:"public_keys"`
	}
	if err := json.Unmarshal(body, &meta); err != nil {
		return nil, fmt.Errorf("meta_data.json: %w", err)
	}
	found := newInstance()
	found.set("hostname", meta.Hostname)
	found.set("local_hostname", meta.Hostname)
	found.set("instance_id", meta.UUID)
	found.set("availability_zone", meta.AvailabilityZone)
	found.set("project", meta.ProjectID)
	for _, name := range slices.Sorted(maps.Keys(meta.PublicKeys)) {
		found.addKeys(meta.PublicKeys[name])
	}
	if found.userData, _, err = read("user_data"); err != nil {
		return nil, err
	}
	body, ok, err = read("network_data.json")
	if err != nil || !ok {
		return found, err
	}
	return found, found.addNetworkData(body)
}

// addNetworkData adds the network in network_data.json.
func (in *instance) addNetworkData(body []byte) error {
	var network struct {
		Links []struct {
			ID  string
			MAC string `json:"ethernet_mac_address"`
			MTU int
		}
		Networks []struct {
			Link, Type, Netmask string
			Address             string `json:"ip_address"`
			Routes              []struct{ Network, Netmask, Gateway string }
		}
		Services []struct{ Type, Address string }
	}
	if err := json.Unmarshal(body, &network); err != nil {
		return fmt.Errorf("network_data.json: %w", err)
	}
	var nameservers []string
	for _, s := range network.Services {
		if s.Type == "dns" {
			nameservers = append(nameservers, s.Address)
		}
	}
	for _, l := range network.Links {
		configured := link{MAC: l.MAC, MTU: l.MTU, Nameservers: nameservers}
		for _, n := range network.Networks {
			if n.Link != l.ID {
				continue
			}
			if address, err := prefixOf(n.Address, n.Netmask); err == nil {
				configured.Addresses = append(configured.Addresses, address)
			}
			for _, r := range n.Routes {
				if to, err := prefixOf(r.Network, r.Netmask); err == nil {
					configured.Routes = append(configured.Routes, route{To: to, Via: r.Gateway})
				}
			}
			if n.Type == "ipv4" {
				in.set("local_ipv4", n.Address)
			}
		}
		if len(configured.Addresses) > 0 {
			in.network = append(in.network, configured)
		}
	}
	return nil
}
