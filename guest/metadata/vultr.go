package main

import (
	"context"
	"encoding/json"
	"fmt"
)

// fetchVultr asks the service of Vultr (https://www.vultr.com/metadata/).
func fetchVultr(ctx context.Context, c *client, endpoint string) (*instance, error) {
	body, err := c.must(ctx, endpoint+"/v1.json", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Hostname   string
		InstanceID string          `json:"instanceid"`
		ID2        string          `json:"instance-v2-id"`
		PublicKeys json.RawMessage `json:"public-keys"`
		Region     struct{ RegionCode string }
		Interfaces []struct {
			MAC         string
			NetworkType string `json:"network-type"`
			IPv4        struct{ Address, Netmask, Gateway string }
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the service's JSON: %w", err)
	}
	found := newInstance()
	found.set("hostname", answer.Hostname)
	found.set("instance_id", first(answer.ID2, answer.InstanceID))
	found.set("region_code", answer.Region.RegionCode)
	for _, nic := range answer.Interfaces {
		if nic.NetworkType == "public" {
			found.set("public_ipv4", nic.IPv4.Address)
			found.set("netmask", nic.IPv4.Netmask)
		} else {
			found.set("private_ipv4", nic.IPv4.Address)
		}
		if address, err := withMask(nic.IPv4.Address, nic.IPv4.Netmask); err == nil {
			l := link{MAC: nic.MAC, Addresses: []string{address}}
			l.addGateway(nic.IPv4.Gateway)
			found.network = append(found.network, l)
		}
	}
	// Either a list, or a string with a key per line.
	var keys []string
	var text string
	if json.Unmarshal(answer.PublicKeys, &keys) == nil {
		found.addKeys(keys...)
	} else if json.Unmarshal(answer.PublicKeys, &text) == nil {
		found.addKeys(text)
	}
	found.userData, _, err = c.get(ctx, endpoint+"/user-data/user-data", nil)
	return found, err
}
