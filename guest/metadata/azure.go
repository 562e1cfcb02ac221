package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// fetchAzure asks the Azure Instance Metadata Service. It provides user data,
// but not custom data, which only an agent receives.
// https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
func fetchAzure(ctx context.Context, c *client, endpoint string) (*instance, error) {
	body, err := c.must(ctx, endpoint+"/metadata/instance?api-version=2021-02-01", http.Header{"Metadata": {"true"}})
	if err != nil {
		return nil, err
	}
	var answer struct {
		Compute struct {
			Name, Location, Zone, VMID, VMSize, UserData string
			OSProfile                                    struct{ ComputerName string }
			PublicKeys                                   []struct{ KeyData string }
		}
		Network struct {
			Interface []struct {
				IPv4 struct {
					IPAddress []struct{ PrivateIPAddress, PublicIPAddress string }
				}
			}
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the service's JSON: %w", err)
	}
	compute := answer.Compute
	found := newInstance()
	found.set("hostname", first(compute.OSProfile.ComputerName, compute.Name))
	found.set("instance_id", compute.VMID)
	found.set("instance_type", compute.VMSize)
	found.set("region", compute.Location)
	found.set("availability_zone", compute.Zone)
	for _, nic := range answer.Network.Interface {
		for _, address := range nic.IPv4.IPAddress {
			found.set("local_ipv4", address.PrivateIPAddress)
			found.set("public_ipv4", address.PublicIPAddress)
		}
	}
	for _, key := range compute.PublicKeys {
		found.addKeys(key.KeyData)
	}
	if found.userData, err = decodeBase64(compute.UserData); err != nil {
		return nil, fmt.Errorf("userData: %w", err)
	}
	return found, nil
}
