package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What is invalid is neither written nor applied; everything else is.
func TestCheck(t *testing.T) {
	found := &instance{
		values: map[string]string{"hostname": "a b", "local_hostname": "web-1.example.com", "region": "a b"},
		network: []link{{
			Nameservers: []string{"192.0.2.1", "192.0.2.1\noptions debug", "fd00::1", "fe80::1%eth0", "fe80::1%x y", "example.com", ""},
			Search:      []string{"example.com", "_tcp.example.com.", ".", "a b", "x\nnameserver 192.0.2.1", "-a", ""},
		}},
	}
	err := found.check()
	want := &instance{
		values: map[string]string{"local_hostname": "web-1.example.com", "region": "a b"},
		network: []link{{
			Nameservers: []string{"192.0.2.1", "fd00::1", "fe80::1%eth0"},
			Search:      []string{"example.com", "_tcp.example.com.", "."},
		}},
	}
	if diff := cmp.Diff(want, found, cmp.AllowUnexported(instance{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if err == nil || strings.Count(err.Error(), "\n") != 8 || !strings.Contains(err.Error(), `name server "192.0.2.1\noptions debug": not an IP address`) {
		t.Errorf("error %v", err)
	}
	if err := want.check(); err != nil {
		t.Errorf("valid values: %v", err)
	}
}

func TestCheckHostname(t *testing.T) {
	long := strings.Repeat("a", 63)
	for name, want := range map[string]bool{
		"a": true, "WEB-1": true, "ip-10-0-0-7.ec2.internal": true, "1.2": true, long: true,
		"": false, ".": false, "a.": false, "a..b": false, "-a": false, "a-": false, "a.-b": false, "a_b": false,
		"a b": false, "a\n": false, "a/b": false, "ä": false, long + "a": false, long + ".a": false,
	} {
		if err := checkHostname(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}
