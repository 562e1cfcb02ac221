package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
)

// fetchEquinixMetal asks the service of Equinix Metal. It ignores user data
// that is a script for iPXE, which is for the boot loader.
// https://deploy.equinix.com/developers/docs/metal/server-metadata/metadata/
func fetchEquinixMetal(ctx context.Context, c *client, endpoint string) (*instance, error) {
	body, err := c.must(ctx, endpoint+"/metadata", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		ID, Hostname, Plan, Facility, Metro string
		Keys                                []string `json:"ssh_keys"`
		Network                             struct {
			Interfaces []struct{ Name, MAC, Bond string }
			Addresses  []struct {
				Family           int `json:"address_family"`
				Address, Gateway string
				CIDR             int
				Public           bool
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the service's JSON: %w", err)
	}
	found := newInstance()
	found.set("hostname", answer.Hostname)
	found.set("instance_id", answer.ID)
	found.set("instance_type", answer.Plan)
	found.set("availability_zone", answer.Facility)
	found.set("region", answer.Metro)
	configured, members := link{}, []link(nil)
	for i, nic := range answer.Network.Interfaces {
		switch {
		case nic.Bond != "" && i == 0:
			configured = link{Kind: kindBond, Name: nic.Bond, Parameters: map[string]string{"mode": "802.3ad"}}
			fallthrough
		case nic.Bond != "" && nic.Bond == configured.Name:
			members = append(members, link{ID: nic.Name, MAC: nic.MAC})
			configured.Over = append(configured.Over, nic.Name)
		case i == 0:
			configured.MAC = nic.MAC
		}
	}
	for _, a := range answer.Network.Addresses {
		address, err := netip.ParseAddr(a.Address)
		if err != nil {
			return nil, fmt.Errorf("network: %w", err)
		}
		configured.Addresses = append(configured.Addresses, netip.PrefixFrom(address, a.CIDR).String())
		switch {
		case a.Family == 4 && a.Public:
			found.set("public_ipv4", a.Address)
			configured.addGateway(a.Gateway)
		case a.Family == 4:
			found.set("local_ipv4", a.Address)
		case a.Public:
			configured.addGateway(a.Gateway)
		}
	}
	if len(configured.Addresses) > 0 {
		found.network = append(members, configured)
	}
	found.addKeys(answer.Keys...)
	if found.userData, _, err = c.get(ctx, endpoint+"/userdata", nil); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(found.userData, []byte("#!ipxe")) {
		found.userData = nil
	}
	return found, nil
}
