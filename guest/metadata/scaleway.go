package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// fetchScaleway asks the service of Scaleway, which provides user data only to
// a privileged port.
// https://www.scaleway.com/en/docs/instances/how-to/use-cloud-init/
func fetchScaleway(ctx context.Context, c *client, endpoint string) (*instance, error) {
	body, err := c.must(ctx, endpoint+"/conf?format=json", nil)
	if err != nil {
		return nil, err
	}
	var answer struct {
		ID             string
		Hostname       string
		CommercialType string                   `json:"commercial_type"`
		PrivateIP      string                   `json:"private_ip"`
		PublicIP       struct{ Address string } `json:"public_ip"`
		Location       struct {
			ZoneID string `json:"zone_id"`
		}
		Keys []struct{ Key string } `json:"ssh_public_keys"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the service's JSON: %w", err)
	}
	found := newInstance()
	found.set("hostname", answer.Hostname)
	found.set("instance_id", answer.ID)
	found.set("instance_type", answer.CommercialType)
	found.set("instance_location", answer.Location.ZoneID)
	found.set("public_ip", answer.PublicIP.Address)
	found.set("private_ip", answer.PrivateIP)
	for _, key := range answer.Keys {
		// Keys that are tags of the instance have underscores instead of
		// spaces.
		found.addKeys(strings.TrimPrefix(key.Key, "AUTHORIZED_KEY="))
	}
	found.userData, _, err = c.privileged().get(ctx, endpoint+"/user_data/cloud-init", nil)
	return found, err
}
