package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
)

// awsTokenTTL is the lifetime of a token in seconds, longer than this program
// runs.
const awsTokenTTL = "300"

// awsValues are file names and their paths below /latest/meta-data/.
var awsValues = []struct{ file, path string }{
	{"hostname", "hostname"},
	{"local_hostname", "local-hostname"},
	{"instance_id", "instance-id"},
	{"instance_type", "instance-type"},
	{"local_ipv4", "local-ipv4"},
	{"public_ipv4", "public-ipv4"},
	{"availability_zone", "placement/availability-zone"},
}

// imdsIPv6 is the address of the service by IPv6, which has to be enabled for an
// instance.
const imdsIPv6 = "[fd00:ec2::254]:80"

// newIMDS returns a client of the service. A machine without IPv4 reaches it by
// IPv6.
func newIMDS(c *client, endpoint string) *imds {
	if endpoint == linkLocal {
		c = c.withFallback(imdsIPv6)
	}
	return &imds{client: c, endpoint: endpoint}
}

// fetchAWS asks version 2 of the EC2 instance metadata service (IMDS), which
// requires a token with every request.
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
func fetchAWS(ctx context.Context, c *client, endpoint string) (*instance, error) {
	return newIMDS(c, endpoint).fetch(ctx)
}

// fetchAWSv1 asks version 1, for services that imitate only that one.
func fetchAWSv1(ctx context.Context, c *client, endpoint string) (*instance, error) {
	s := newIMDS(c, endpoint)
	s.v1 = true
	return s.fetch(ctx)
}

type imds struct {
	client   *client
	endpoint string
	token    string
	v1       bool // use no token
}

func (s *imds) fetch(ctx context.Context) (*instance, error) {
	found := newInstance()
	for _, value := range awsValues {
		text, ok, err := s.get(ctx, "/latest/meta-data/"+value.path)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		found.values[value.file] = strings.TrimSpace(string(text))
	}
	// With several domain names in the DHCP options of the VPC, the service
	// gives several names, separated by spaces. The first one is complete.
	for _, file := range hostFiles {
		if names := strings.Fields(found.values[file]); len(names) > 1 {
			found.values[file] = names[0]
		}
	}
	var err error
	if found.keys, err = s.keys(ctx); err != nil {
		return nil, err
	}
	if found.userData, _, err = s.get(ctx, "/latest/user-data"); err != nil {
		return nil, err
	}
	return found, nil
}

// keys returns the public keys of the instance. The list has a line
// "INDEX=NAME" for each.
func (s *imds) keys(ctx context.Context) ([]string, error) {
	const dir = "/latest/meta-data/public-keys/"
	list, ok, err := s.get(ctx, dir)
	if err != nil {
		return nil, err
	}
	if !ok {
		log.Print("aws: no public-keys: the instance has no key pair")
		return nil, nil
	}
	var keys []string
	for line := range strings.Lines(string(list)) {
		index := strings.TrimSpace(line)
		if end := strings.IndexAny(index, "=/"); end >= 0 {
			index = index[:end]
		}
		if index == "" {
			continue
		}
		if strings.Trim(index, "0123456789") != "" {
			return nil, fmt.Errorf("%s%s: line %q does not start with a number", s.endpoint, dir, strings.TrimSpace(line))
		}
		text, ok, err := s.get(ctx, dir+index+"/openssh-key")
		if err != nil {
			return nil, err
		}
		if !ok {
			log.Printf("aws: public key %s has no openssh-key", index)
			continue
		}
		for key := range strings.Lines(string(text)) {
			if key = strings.TrimSpace(key); key != "" {
				keys = append(keys, key)
			}
		}
	}
	return keys, nil
}

// get returns the value at a path, and false if the instance does not have it.
func (s *imds) get(ctx context.Context, path string) ([]byte, bool, error) {
	url := s.endpoint + path
	if s.v1 {
		return s.client.get(ctx, url, nil)
	}
	for fresh := false; ; {
		if s.token == "" {
			if err := s.getToken(ctx); err != nil {
				return nil, false, err
			}
			fresh = true
		}
		status, body, err := s.client.send(ctx, http.MethodGet, url, http.Header{"X-Aws-Ec2-Metadata-Token": {s.token}})
		switch {
		case err != nil:
			return nil, false, err
		case status == http.StatusOK:
			return body, true, nil
		case status == http.StatusNotFound:
			return nil, false, nil
		case status == http.StatusUnauthorized && !fresh:
			s.token = "" // expired
		default:
			return nil, false, fmt.Errorf("GET %s: the service answers %d %s", url, status, http.StatusText(status))
		}
	}
}

func (s *imds) getToken(ctx context.Context) error {
	url := s.endpoint + "/latest/api/token"
	status, body, err := s.client.send(ctx, http.MethodPut, url, http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {awsTokenTTL}})
	if err != nil {
		return err
	}
	s.token = strings.TrimSpace(string(body))
	switch {
	case status == http.StatusForbidden:
		return fmt.Errorf("PUT %s: the service answers 403: instance metadata is disabled; enable it with \"aws ec2 modify-instance-metadata-options --http-endpoint enabled\"", url)
	case status != http.StatusOK:
		return fmt.Errorf("PUT %s: the service answers %d %s, so it does not support IMDSv2 (use the provider aws=v1 for version 1)", url, status, http.StatusText(status))
	case s.token == "":
		return fmt.Errorf("PUT %s: the service returned an empty token", url)
	}
	return nil
}
