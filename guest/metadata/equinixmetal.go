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
	configured := link{}
	if interfaces := answer.Network.Interfaces; len(interfaces) > 0 {
		configured.MAC, configured.Bond = interfaces[0].MAC, interfaces[0].Bond
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
		found.network = []link{configured}
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
