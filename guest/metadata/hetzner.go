package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// fetchHetzner asks Hetzner Cloud. https://docs.hetzner.cloud/#server-metadata
func fetchHetzner(ctx context.Context, c *client, endpoint string) (*instance, error) {
	found := newInstance()
	for _, value := range []struct{ file, path string }{
		{"hostname", "hostname"},
		{"instance_id", "instance-id"},
		{"public_ipv4", "public-ipv4"},
		{"availability_zone", "availability-zone"},
		{"region", "region"},
	} {
		text, ok, err := c.get(ctx, endpoint+"/hetzner/v1/metadata/"+value.path, nil)
		if err != nil {
			return nil, err
		}
		// Every server has a hostname. Without it, another service has
		// answered.
		if !ok && value.file == "hostname" {
			return nil, fmt.Errorf("%s: no hostname: not the service of Hetzner", endpoint)
		}
		found.set(value.file, strings.TrimSpace(string(text)))
	}
	text, ok, err := c.get(ctx, endpoint+"/hetzner/v1/metadata/public-keys", nil)
	if err != nil {
		return nil, err
	}
	if ok && len(strings.TrimSpace(string(text))) > 0 {
		var keys []string
		if err := json.Unmarshal(text, &keys); err != nil {
			return nil, fmt.Errorf("public-keys: %w", err)
		}
		found.addKeys(keys...)
	}
	found.userData, _, err = c.get(ctx, endpoint+"/hetzner/v1/userdata", nil)
	return found, err
}
