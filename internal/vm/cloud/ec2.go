package cloud

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxTTL is the longest lifetime of a session token.
const maxTTL = 6 * time.Hour

// maxTokens limits the memory that a machine can use up with tokens.
const maxTokens = 10000

// Headers of the service.
const (
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
)

// versions are the versions of the service's tree that have the same content.
var versions = []string{"2021-03-23", "2021-07-15", "2024-04-11", "latest"}

// EC2 serves the instance metadata service of EC2. It is IMDSv2 only: each read
// requires a session token.
//
// A response to PUT has a hop limit of 1 on EC2, so that no router forwards it.
// QEMU's user network has no hop limits. As on EC2, the service rejects requests
// for a token that a proxy has forwarded.
//
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
type EC2 struct {
	values map[string]string // by path below a version
	now    func() time.Time

	mu     sync.Mutex
	tokens map[string]time.Time // the ends of their lives
}

// NewEC2 returns a service that describes an instance.
func NewEC2(i Instance) *EC2 {
	values := map[string]string{
		"meta-data/ami-id":                                       "ami-00000000000000000",
		"meta-data/ami-launch-index":                             "0",
		"meta-data/hostname":                                     i.Hostname,
		"meta-data/instance-action":                              "none",
		"meta-data/instance-id":                                  i.ID,
		"meta-data/instance-type":                                instanceType,
		"meta-data/local-hostname":                               i.Hostname,
		"meta-data/local-ipv4":                                   GuestIPv4,
		"meta-data/mac":                                          GuestMAC,
		"meta-data/placement/availability-zone":                  zone,
		"meta-data/placement/region":                             region,
		"meta-data/security-groups":                              "default",
		"meta-data/network/interfaces/macs/" + GuestMAC + "/mac": GuestMAC,
		"meta-data/network/interfaces/macs/" + GuestMAC + "/device-number": "0",
		"meta-data/network/interfaces/macs/" + GuestMAC + "/local-ipv4s":   GuestIPv4,
		"dynamic/instance-identity/document":                               i.document(),
	}
	for n, key := range i.PublicKeys {
		values[fmt.Sprintf("meta-data/public-keys/%d/openssh-key", n)] = key
	}
	if i.UserData != "" {
		values["user-data"] = i.UserData
	}
	return &EC2{values: values, now: time.Now, tokens: map[string]time.Time{}}
}

// document returns the instance identity document.
func (i Instance) document() string {
	architecture := map[string]string{"amd64": "x86_64"}[runtime.GOARCH]
	if architecture == "" {
		architecture = runtime.GOARCH
	}
	text, err := json.MarshalIndent(map[string]any{
		"accountId": account, "architecture": architecture, "availabilityZone": zone, "imageId": "ami-00000000000000000",
		"instanceId": i.ID, "instanceType": instanceType, "privateIp": GuestIPv4, "region": region, "version": "2017-09-30",
	}, "", "  ")
	if err != nil {
		panic(err) // strings only
	}
	return string(text)
}

func (s *EC2) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	version, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPut && name == "api/token" && version == "latest":
		s.serveToken(w, r)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		fail(w, http.StatusMethodNotAllowed)
		return
	case !s.valid(r.Header.Get(tokenHeader)):
		fail(w, http.StatusUnauthorized)
		return
	}
	text, ok := s.read(version, name)
	if !ok {
		fail(w, http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.Write([]byte(text))
}

func fail(w http.ResponseWriter, status int) { http.Error(w, http.StatusText(status), status) }

// serveToken starts a session.
func (s *EC2) serveToken(w http.ResponseWriter, r *http.Request) {
	if len(r.Header.Values("X-Forwarded-For")) > 0 {
		fail(w, http.StatusForbidden)
		return
	}
	seconds, err := strconv.Atoi(r.Header.Get(ttlHeader))
	ttl := time.Duration(seconds) * time.Second
	if err != nil || seconds < 1 || seconds > int(maxTTL/time.Second) {
		fail(w, http.StatusBadRequest)
		return
	}
	token := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	maps.DeleteFunc(s.tokens, func(_ string, end time.Time) bool { return !now.Before(end) })
	if len(s.tokens) >= maxTokens {
		fail(w, http.StatusServiceUnavailable)
		return
	}
	s.tokens[token] = now.Add(ttl)
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set(ttlHeader, strconv.Itoa(seconds))
	fmt.Fprint(w, token)
}

func (s *EC2) valid(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.tokens[token]
	return ok && s.now().Before(end)
}

// read returns the value at a path, or the list of what a directory contains.
func (s *EC2) read(version, name string) (string, bool) {
	if version == "" {
		return strings.Join(versions, "\n"), true
	}
	if !slices.Contains(versions, version) || name != "" && path.Clean(name) != strings.TrimSuffix(name, "/") {
		return "", false
	}
	if value, ok := s.values[name]; ok {
		return value, true
	}
	dir := strings.TrimSuffix(name, "/")
	if dir != "" {
		dir += "/"
	}
	children := map[string]bool{}
	for value := range s.values {
		rest, ok := strings.CutPrefix(value, dir)
		if !ok {
			continue
		}
		child, _, isDir := strings.Cut(rest, "/")
		switch {
		case dir == "meta-data/public-keys/": // INDEX=NAME, of directories
			child += "=slipway"
		case isDir:
			child += "/"
		}
		children[child] = true
	}
	list := slices.Sorted(maps.Keys(children))
	return strings.Join(list, "\n"), len(list) > 0
}
