package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"strings"
)

// fetchGCP asks Google Compute Engine, which returns all values in one
// response.
// https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
func fetchGCP(ctx context.Context, c *client, endpoint string) (*instance, error) {
	body, err := c.must(ctx, endpoint+"/computeMetadata/v1/?recursive=true", http.Header{"Metadata-Flavor": {"Google"}})
	if err != nil {
		return nil, err
	}
	type attributes struct {
		Keys       string `json:"ssh-keys"`
		OldKeys    string `json:"sshKeys"`
		BlockKeys  string `json:"block-project-ssh-keys"`
		UserData   string `json:"user-data"`
		UserData64 string `json:"user-data-encoding"`
	}
	var answer struct {
		Instance struct {
			ID                          json.Number
			Hostname, Zone, MachineType string
			Attributes                  attributes
			NetworkInterfaces           []struct {
				IP            string
				AccessConfigs []struct{ ExternalIP string }
			}
		}
		Project struct {
			ProjectID  string
			Attributes attributes
		}
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("the service's JSON: %w", err)
	}
	in := answer.Instance
	found := newInstance()
	found.set("hostname", in.Hostname)
	found.set("instance_id", in.ID.String())
	// projects/NUMBER/zones/NAME, projects/NUMBER/machineTypes/NAME
	found.set("availability_zone", base(in.Zone))
	found.set("instance_type", base(in.MachineType))
	found.set("project", answer.Project.ProjectID)
	if len(in.NetworkInterfaces) > 0 {
		nic := in.NetworkInterfaces[0]
		found.set("local_ipv4", nic.IP)
		if len(nic.AccessConfigs) > 0 {
			found.set("public_ipv4", nic.AccessConfigs[0].ExternalIP)
		}
	}
	lists := []string{in.Attributes.Keys, in.Attributes.OldKeys}
	if in.Attributes.BlockKeys != "true" && in.Attributes.OldKeys == "" {
		lists = append(lists, answer.Project.Attributes.Keys, answer.Project.Attributes.OldKeys)
	}
	for _, list := range lists {
		for line := range strings.Lines(list) {
			// Lines are USER:KEY. The machine has one user.
			if _, key, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
				found.addKeys(key)
			}
		}
	}
	found.userData = []byte(in.Attributes.UserData)
	if in.Attributes.UserData64 == "base64" {
		if found.userData, err = decodeBase64(in.Attributes.UserData); err != nil {
			return nil, fmt.Errorf("user-data: %w", err)
		}
	}
	return found, nil
}

func base(name string) string {
	if name == "" {
		return ""
	}
	return path.Base(name)
}
