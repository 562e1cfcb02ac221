package cloud

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/iso9660"
)

var instance = Instance{ID: "i-0abc", Hostname: "host.internal", PublicKeys: []string{"ssh-ed25519 AAAA me", "ssh-ed25519 BBBB you"}, UserData: "a: b\n"}

// request sends a request with headers NAME: VALUE.
func request(s *EC2, method, path string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func token(t *testing.T, s *EC2, ttl string) string {
	t.Helper()
	w := request(s, "PUT", "/latest/api/token", ttlHeader+": "+ttl)
	if w.Code != http.StatusOK || w.Body.Len() < 20 || w.Header().Get(ttlHeader) != ttl {
		t.Fatalf("token: %d %q %q", w.Code, w.Body, w.Header())
	}
	return w.Body.String()
}

func TestValues(t *testing.T) {
	s := NewEC2(instance)
	session := tokenHeader + ": " + token(t, s, "60")
	for path, want := range map[string]string{
		"/":                               strings.Join(versions, "\n"),
		"/latest/":                        "dynamic/\nmeta-data/\nuser-data",
		"/latest/user-data":               "a: b\n",
		"/latest/meta-data/instance-id":   "i-0abc",
		"/2021-03-23/meta-data/hostname":  "host.internal",
		"/latest/meta-data/public-keys/":  "0=slipway\n1=slipway",
		"/latest/meta-data/public-keys/0": "openssh-key",
		"/latest/meta-data/public-keys/1/openssh-key": "ssh-ed25519 BBBB you",
		"/latest/meta-data/placement":                 "availability-zone\nregion",
		"/latest/meta-data/placement/":                "availability-zone\nregion",
	} {
		if w := request(s, "GET", path, session); w.Code != http.StatusOK || w.Body.String() != want {
			t.Errorf("%s: %d %q, want %q", path, w.Code, w.Body, want)
		}
	}
	for _, path := range []string{"/1999-01-01/meta-data/", "/latest/meta-data/nonsuch", "/latest/meta-data/instance-id/x", "/latest/meta-data//instance-id",
		"/latest/meta-data/../user-data", "/latest/user-data/", "/latest/api/token"} {
		if w := request(s, "GET", path, session); w.Code != http.StatusNotFound {
			t.Errorf("%s: %d %q, want 404", path, w.Code, w.Body)
		}
	}
	var document map[string]string
	if err := json.Unmarshal(request(s, "GET", "/latest/dynamic/instance-identity/document", session).Body.Bytes(), &document); err != nil || document["instanceId"] != "i-0abc" {
		t.Errorf("identity document %v: %v", document, err)
	}
	if list := request(s, "GET", "/latest/meta-data/", session).Body.String(); !slices.Contains(strings.Split(list, "\n"), "public-keys/") {
		t.Errorf("meta-data lists %q", list)
	}
	if w := request(NewEC2(Instance{}), "GET", "/latest/user-data", session); w.Code != http.StatusUnauthorized {
		t.Errorf("a token of another service: %d", w.Code)
	}
	bare := NewEC2(Instance{ID: "i-1"})
	session = tokenHeader + ": " + token(t, bare, "60")
	for _, path := range []string{"/latest/user-data", "/latest/meta-data/public-keys/"} {
		if w := request(bare, "GET", path, session); w.Code != http.StatusNotFound {
			t.Errorf("%s of an instance without: %d", path, w.Code)
		}
	}
}

// The service demands the protocol of IMDSv2 to the letter.
func TestTokens(t *testing.T) {
	s := NewEC2(instance)
	now := time.Now()
	s.now = func() time.Time { return now }
	const path = "/latest/meta-data/instance-id"
	for _, c := range []struct {
		method, path string
		header       string
		want         int
	}{
		{"GET", path, "", http.StatusUnauthorized},
		{"GET", path, tokenHeader + ": guess", http.StatusUnauthorized},
		{"GET", "/latest/nonsuch", "", http.StatusUnauthorized}, // before 404, so that nothing can be found out
		{"PUT", "/latest/api/token", "", http.StatusBadRequest},
		{"PUT", "/latest/api/token", ttlHeader + ": 0", http.StatusBadRequest},
		{"PUT", "/latest/api/token", ttlHeader + ": 21601", http.StatusBadRequest},
		{"PUT", "/latest/api/token", ttlHeader + ": soon", http.StatusBadRequest},
		{"PUT", "/latest/api/token", ttlHeader + ": 21600", http.StatusOK},
		{"PUT", path, ttlHeader + ": 60", http.StatusMethodNotAllowed},
		{"POST", "/latest/api/token", ttlHeader + ": 60", http.StatusMethodNotAllowed},
		{"DELETE", path, "", http.StatusMethodNotAllowed},
	} {
		if w := request(s, c.method, c.path, c.header); w.Code != c.want {
			t.Errorf("%s %s with %q: %d, want %d", c.method, c.path, c.header, w.Code, c.want)
		}
	}
	if w := request(s, "PUT", "/latest/api/token", ttlHeader+": 60", "X-Forwarded-For: 10.0.0.1"); w.Code != http.StatusForbidden {
		t.Errorf("a token through a proxy: %d", w.Code)
	}
	short := tokenHeader + ": " + token(t, s, "1")
	if w := request(s, "GET", path, short); w.Code != http.StatusOK {
		t.Errorf("a new token: %d", w.Code)
	}
	now = now.Add(time.Second)
	if w := request(s, "GET", path, short); w.Code != http.StatusUnauthorized {
		t.Errorf("an expired token: %d", w.Code)
	}
}

// A machine cannot use up the host's memory with tokens.
func TestTooManyTokens(t *testing.T) {
	s := NewEC2(instance)
	for range maxTokens {
		s.tokens[strings.Repeat("x", len(s.tokens))] = time.Now().Add(time.Hour)
	}
	if w := request(s, "PUT", "/latest/api/token", ttlHeader+": 60"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("one token more: %d", w.Code)
	}
}

func TestNoCloud(t *testing.T) {
	var volume bytes.Buffer
	if err := instance.WriteNoCloud(&volume); err != nil {
		t.Fatal(err)
	}
	image := volume.Bytes()
	if label := strings.TrimSpace(string(image[16*iso9660.SectorSize+40:][:32])); label != "CIDATA" {
		t.Errorf("label %q", label)
	}
	for _, text := range []string{"a: b\n", `"instance-id":"i-0abc"`, `"local-hostname":"host.internal"`, `"public-keys":["ssh-ed25519 AAAA me","ssh-ed25519 BBBB you"]`} {
		if !bytes.Contains(image, []byte(text)) {
			t.Errorf("the volume lacks %q", text)
		}
	}
}
