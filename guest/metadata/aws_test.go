package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// strictIMDS answers as the service of EC2 with HttpTokens=required. It fails
// the test on a request that no client should make.
type strictIMDS struct {
	t      *testing.T
	values map[string]string // below /latest/
	uses   int               // requests until a token expires; 0: never
	first  []int             // statuses of the first responses

	tokens, requests int
	left             int
}

func (s *strictIMDS) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests++
	if s.requests <= len(s.first) {
		w.WriteHeader(s.first[s.requests-1])
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/latest/")
	if path == "api/token" {
		s.giveToken(w, r)
		return
	}
	if r.Method != http.MethodGet {
		s.t.Errorf("%s %s: only GET is allowed", r.Method, r.URL)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	token := r.Header.Get("X-aws-ec2-metadata-token")
	if token == "" {
		s.t.Errorf("GET %s without a token: that is IMDSv1", r.URL)
	}
	if token != fmt.Sprint("token", s.tokens) || s.uses > 0 && s.left == 0 {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.left--
	value, ok := s.values[path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, "<html>404 - Not Found</html>")
		return
	}
	fmt.Fprint(w, value)
}

func (s *strictIMDS) giveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut {
		s.t.Errorf("%s %s: want PUT", r.Method, r.URL)
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
	if err != nil || ttl < 1 || ttl > 21600 {
		s.t.Errorf("PUT %s with a lifetime of %q seconds: want 1 to 21600", r.URL, r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds"))
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.tokens++
	s.left = s.uses
	fmt.Fprint(w, "token", s.tokens)
}

func fullInstance() map[string]string {
	return map[string]string{
		"meta-data/hostname":                    "ip-10-0-0-7.ec2.internal",
		"meta-data/local-hostname":              "ip-10-0-0-7.ec2.internal",
		"meta-data/instance-id":                 "i-0123456789abcdef0",
		"meta-data/instance-type":               "t3.micro",
		"meta-data/local-ipv4":                  "10.0.0.7",
		"meta-data/public-ipv4":                 "203.0.113.9",
		"meta-data/placement/availability-zone": "eu-central-1b",
		"meta-data/public-keys/":                "0=alice\n1=bob",
		"meta-data/public-keys/0/openssh-key":   "ssh-ed25519 AAAA alice",
		"meta-data/public-keys/1/openssh-key":   "ssh-rsa BBBB bob\n",
		"user-data":                             "#!/bin/sh\necho \x00 \xff\n",
	}
}

func serve(t *testing.T, handler http.Handler) (*imds, *httptest.Server) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return &imds{client: quickClient(), endpoint: server.URL}, server
}

func TestAWS(t *testing.T) {
	service := &strictIMDS{t: t, values: fullInstance()}
	s, _ := serve(t, service)
	found, err := s.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &instance{
		values: map[string]string{
			"hostname":          "ip-10-0-0-7.ec2.internal",
			"local_hostname":    "ip-10-0-0-7.ec2.internal",
			"instance_id":       "i-0123456789abcdef0",
			"instance_type":     "t3.micro",
			"local_ipv4":        "10.0.0.7",
			"public_ipv4":       "203.0.113.9",
			"availability_zone": "eu-central-1b",
		},
		keys:     []string{"ssh-ed25519 AAAA alice", "ssh-rsa BBBB bob"},
		userData: []byte("#!/bin/sh\necho \x00 \xff\n"),
	}
	if diff := cmp.Diff(want, found, cmp.AllowUnexported(instance{})); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
	if service.tokens != 1 {
		t.Errorf("%d tokens were asked for, want 1", service.tokens)
	}
}

// In a VPC with several domain names, the service gives several host names.
func TestAWSHostnames(t *testing.T) {
	values := fullInstance()
	values["meta-data/hostname"] = "ip-10-0-0-7.example.com example.org"
	values["meta-data/local-hostname"] = "ip-10-0-0-7.example.com example.org"
	s, _ := serve(t, &strictIMDS{t: t, values: values})
	found, err := s.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range hostFiles {
		if found.values[file] != "ip-10-0-0-7.example.com" {
			t.Errorf("%s is %q", file, found.values[file])
		}
	}
}

// An instance without key pair, user data and public address, for which EC2
// answers 404.
func TestAWSOptionalValuesMissing(t *testing.T) {
	values := fullInstance()
	for path := range values {
		if strings.Contains(path, "public-") || path == "user-data" {
			delete(values, path)
		}
	}
	s, _ := serve(t, &strictIMDS{t: t, values: values})
	found, err := s.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := found.values["public_ipv4"]; ok || len(found.values) != 6 {
		t.Errorf("values %v, want the six others than public_ipv4", found.values)
	}
	if found.keys != nil || found.userData != nil {
		t.Errorf("keys %q, user data %q, want none", found.keys, found.userData)
	}
}

func TestAWSTokenExpires(t *testing.T) {
	service := &strictIMDS{t: t, values: fullInstance(), uses: 3}
	s, _ := serve(t, service)
	found, err := s.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(found.values) != 7 || len(found.keys) != 2 {
		t.Errorf("got %d values and %d keys, want 7 and 2", len(found.values), len(found.keys))
	}
	if service.tokens != 4 { // 7 values, the list, 2 keys and the user data: 11 requests
		t.Errorf("%d tokens were asked for, want 4", service.tokens)
	}
}

func TestAWSComesUpLate(t *testing.T) {
	service := &strictIMDS{t: t, values: fullInstance(), first: []int{503, 500, 429, 502}}
	s, _ := serve(t, service)
	if _, err := s.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAWSSlow(t *testing.T) {
	service := &strictIMDS{t: t, values: fullInstance()}
	requests := 0
	s, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests == 3 {
			<-r.Context().Done() // until the client cancels this attempt
			return
		}
		service.ServeHTTP(w, r)
	}))
	s.client.http.Timeout = 50 * time.Millisecond
	if _, err := s.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAWSFails(t *testing.T) {
	always := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	// after returns a service that provides tokens and answers everything else with
	// handler.
	after := func(handler http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				fmt.Fprint(w, "token")
				return
			}
			handler(w, r)
		}
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("a redirect was followed: %s %s, token %q", r.Method, r.URL, r.Header.Get("X-aws-ec2-metadata-token"))
	}))
	defer elsewhere.Close()
	tests := []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"metadata disabled", always(403), "/latest/api/token: the service answers 403: instance metadata is disabled"},
		{"only version 1", always(404), "/latest/api/token: the service answers 404 Not Found, so it does not support IMDSv2"},
		{"empty token", always(200), "/latest/api/token: the service returned an empty token"},
		{"fresh token refused", after(always(401)), "/latest/meta-data/hostname: the service answers 401 Unauthorized"},
		{"redirect", after(http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP), "/latest/meta-data/hostname: the service answers 302 Found"},
		{"too long", after(func(w http.ResponseWriter, _ *http.Request) {
			w.Write(make([]byte, maxBody+1))
		}), "/latest/meta-data/hostname: the value is longer than 1048576 bytes"},
		{"too much", after(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/public-keys/") {
				fmt.Fprint(w, strings.Repeat("0=key\n", 100))
				return
			}
			w.Write(bytes.Repeat([]byte("k"), maxBody))
		}), "/latest/meta-data/public-keys/0/openssh-key: all values together are longer than 8388608 bytes"},
		{"strange key list", after(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "../user-data=x")
		}), `/latest/meta-data/public-keys/: line "../user-data=x" does not start with a number`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, _ := serve(t, test.handler)
			_, err := s.fetch(t.Context())
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one with %q", err, test.want)
			}
		})
	}
}

func TestAWSGivesUp(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := silent.Addr().String()
	silent.Close()
	s, _ := serve(t, http.NotFoundHandler())
	s.endpoint = "http://" + refusing
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = s.fetch(ctx)
	if err == nil || !strings.Contains(err.Error(), "gave up after 100ms") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("error %v, want one that says how long it tried and that the connection was refused", err)
	}
}

// A machine without IPv4 reaches the service by IPv6.
func TestFallback(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
	defer server.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	body, ok, err := newClient().withFallback(server.Listener.Addr().String()).get(t.Context(), "http://"+closed, nil)
	if err != nil || !ok || string(body) != closed {
		t.Errorf("answer %q, %t, error %v", body, ok, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := newClient().withFallback(closed).get(ctx, "http://"+closed, nil); err == nil || strings.Count(err.Error(), "connection refused") != 2 {
		t.Errorf("error %v, want one for each address", err)
	}
}
