package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
)

// fetchDigitalOcean asks the service of DigitalOcean for droplets.
// https://docs.digitalocean.com/reference/api/metadata/
func fetchDigitalOcean(ctx context.Context, c *client, endpoint string) (*instance, error) {
	body, err := c.must(ctx, endpoint+"/metadata/v1.json", nil)
	if err != nil {
		return nil, err
	}
	type nic struct {
		MAC  string
		IPv4 struct {
			Address string `json:"ip_address"`
			Netmask string
			Gateway string
		}
		IPv6 struct {
			Address string `json:"ip_address"`
			CIDR    int
			Gateway string
		}
	}
	var answer struct {
		ID         json.Number `json:"droplet_id"`
		Hostname   string
		UserData   string   `json:"user_data"`
		PublicKeys []string `json:"public_keys"`
		Region     string
		Interfaces struct{ Public, Private []nic }
		DNS        struct{ Nameservers []string }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the service's JSON: %w", err)
	}
	found := newInstance()
	found.set("hostname", answer.Hostname)
	found.set("id", answer.ID.String())
	found.set("region", answer.Region)
	for _, kind := range []struct {
		file string
		nics []nic
	}{{"public_ipv4", answer.Interfaces.Public}, {"private_ipv4", answer.Interfaces.Private}} {
		for _, n := range kind.nics {
			found.set(kind.file, n.IPv4.Address)
			l := link{MAC: n.MAC, Nameservers: answer.DNS.Nameservers}
			if address, err := withMask(n.IPv4.Address, n.IPv4.Netmask); err == nil {
				l.Addresses = append(l.Addresses, address)
			}
			if ip, err := netip.ParseAddr(n.IPv6.Address); err == nil {
				l.Addresses = append(l.Addresses, netip.PrefixFrom(ip, n.IPv6.CIDR).String())
			}
			// The gateway of the private network leads nowhere else.
			if kind.file == "public_ipv4" {
				l.addGateway(n.IPv4.Gateway)
				l.addGateway(n.IPv6.Gateway)
			}
			if len(l.Addresses) > 0 {
				found.network = append(found.network, l)
			}
		}
	}
	found.addKeys(answer.PublicKeys...)
	found.userData = []byte(answer.UserData)
	return found, nil
}
