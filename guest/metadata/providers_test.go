package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// answers is a metadata service with the documented answers of one cloud, by
// path and query. It requires a header where the cloud does.
type answers struct {
	t       *testing.T
	header  string // "Name: value"
	answers map[string]string
}

func (a *answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name, value, ok := strings.Cut(a.header, ": "); ok && r.Header.Get(name) != value {
		a.t.Errorf("GET %s without %s", r.URL, a.header)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet {
		a.t.Errorf("%s %s: only GET is allowed", r.Method, r.URL)
	}
	text, ok := a.answers[r.URL.RequestURI()]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	fmt.Fprint(w, text)
}

func quickClient() *client {
	c := newClient()
	c.delay, c.maxDelay = time.Millisecond, time.Millisecond
	return c
}

var clouds = []struct {
	name   string
	fetch  func(context.Context, *client, string) (*instance, error)
	header string
	files  map[string]string
	want   *instance
}{
	{"gcp", fetchGCP, "Metadata-Flavor: Google", map[string]string{
		"/computeMetadata/v1/?recursive=true": `{"instance": {"attributes": {"ssh-keys": "alice:ssh-ed25519 AAAA alice\nbob:ssh-rsa BBBB", "user-data": "#!/bin/sh\n"},
			"hostname": "m1.c.proj.internal", "id": 5876543210987654321, "machineType": "projects/123/machineTypes/e2-micro", "zone": "projects/123/zones/europe-west1-b",
			"networkInterfaces": [{"accessConfigs": [{"externalIp": "203.0.113.9", "type": "ONE_TO_ONE_NAT"}], "ip": "10.132.0.2", "mac": "42:01:0a:84:00:02"}]},
			"project": {"attributes": {"ssh-keys": "carol:ssh-ed25519 CCCC"}, "numericProjectId": 123, "projectId": "proj"}}`,
	}, &instance{
		values: map[string]string{"hostname": "m1.c.proj.internal", "instance_id": "5876543210987654321", "instance_type": "e2-micro",
			"availability_zone": "europe-west1-b", "local_ipv4": "10.132.0.2", "public_ipv4": "203.0.113.9", "project": "proj"},
		keys: []string{"ssh-ed25519 AAAA alice", "ssh-rsa BBBB", "ssh-ed25519 CCCC"}, userData: []byte("#!/bin/sh\n"),
	}},
	{"gcp, keys of the project blocked", fetchGCP, "Metadata-Flavor: Google", map[string]string{
		"/computeMetadata/v1/?recursive=true": `{"instance": {"hostname": "m1", "attributes": {"block-project-ssh-keys": "true", "user-data-encoding": "base64", "user-data": "aGk="}},
			"project": {"attributes": {"ssh-keys": "carol:ssh-ed25519 CCCC"}}}`,
	}, &instance{values: map[string]string{"hostname": "m1"}, userData: []byte("hi")}},
	{"azure", fetchAzure, "Metadata: true", map[string]string{
		"/metadata/instance?api-version=2021-02-01": `{"compute": {"name": "examplevm", "location": "westus", "zone": "1", "vmId": "02aab8a4-74ef-476e-8182-f6d2ba4166a6", "vmSize": "Standard_A3",
			"osProfile": {"adminUsername": "admin", "computerName": "examplevm1"}, "publicKeys": [{"keyData": "ssh-rsa 0\r\n", "path": "/home/user/.ssh/authorized_keys0"}], "userData": "aGk="},
			"network": {"interface": [{"ipv4": {"ipAddress": [{"privateIpAddress": "10.144.133.132", "publicIpAddress": ""}], "subnet": [{"address": "10.144.133.128", "prefix": "26"}]}, "macAddress": "0011AAFFBB22"}]}}`,
	}, &instance{
		values: map[string]string{"hostname": "examplevm1", "instance_id": "02aab8a4-74ef-476e-8182-f6d2ba4166a6", "instance_type": "Standard_A3", "region": "westus", "availability_zone": "1", "local_ipv4": "10.144.133.132"},
		keys:   []string{"ssh-rsa 0"}, userData: []byte("hi"),
	}},
	{"hetzner", fetchHetzner, "", map[string]string{
		"/hetzner/v1/metadata/hostname": "my-server", "/hetzner/v1/metadata/instance-id": "42", "/hetzner/v1/metadata/public-ipv4": "203.0.113.4",
		"/hetzner/v1/metadata/availability-zone": "fsn1-dc14", "/hetzner/v1/metadata/region": "eu-central",
		"/hetzner/v1/metadata/public-keys": `["ssh-ed25519 AAAA"]`, "/hetzner/v1/userdata": "#cloud-config\n",
	}, &instance{
		values: map[string]string{"hostname": "my-server", "instance_id": "42", "public_ipv4": "203.0.113.4", "availability_zone": "fsn1-dc14", "region": "eu-central"},
		keys:   []string{"ssh-ed25519 AAAA"}, userData: []byte("#cloud-config\n"),
	}},
	{"digitalocean", fetchDigitalOcean, "", map[string]string{
		"/metadata/v1.json": `{"droplet_id": 2756294, "hostname": "sample-droplet", "user_data": "#!/bin/sh", "public_keys": ["ssh-rsa AAAA a@b"], "region": "nyc3",
			"interfaces": {"private": [{"ipv4": {"ip_address": "10.132.255.113", "netmask": "255.255.0.0", "gateway": "10.132.0.1"}, "mac": "04:01:2a:0f:2a:02", "type": "private"}],
			"public": [{"ipv4": {"ip_address": "104.131.20.105", "netmask": "255.255.192.0", "gateway": "104.131.0.1"},
				"ipv6": {"ip_address": "2604:A880:0800:0010:0000:0000:017D:2001", "gateway": "2604:a880:800:10::1", "cidr": 64}, "mac": "04:01:2a:0f:2a:01", "type": "public"}]},
			"dns": {"nameservers": ["2001:4860:4860::8844", "8.8.8.8"]}}`,
	}, &instance{
		values: map[string]string{"hostname": "sample-droplet", "id": "2756294", "region": "nyc3", "public_ipv4": "104.131.20.105", "private_ipv4": "10.132.255.113"},
		keys:   []string{"ssh-rsa AAAA a@b"}, userData: []byte("#!/bin/sh"),
		network: []link{
			{MAC: "04:01:2a:0f:2a:01", Addresses: []string{"104.131.20.105/18", "2604:a880:800:10::17d:2001/64"}, Routes: []route{{To: "0.0.0.0/0", Via: "104.131.0.1"}, {To: "::/0", Via: "2604:a880:800:10::1"}}, Nameservers: []string{"2001:4860:4860::8844", "8.8.8.8"}},
			{MAC: "04:01:2a:0f:2a:02", Addresses: []string{"10.132.255.113/16"}, Nameservers: []string{"2001:4860:4860::8844", "8.8.8.8"}},
		},
	}},
	{"vultr", fetchVultr, "", map[string]string{
		"/v1.json": `{"hostname": "vultr-guest", "instanceid": "a747bfz6385e", "public-keys": "ssh-rsa AAAA\nssh-rsa BBBB\n", "region": {"regioncode": "EWR"},
			"interfaces": [{"ipv4": {"address": "192.0.2.110", "gateway": "192.0.2.1", "netmask": "255.255.254.0"}, "mac": "56:00:03:15:c4:65", "network-type": "public"}]}`,
		"/user-data/user-data": "echo",
	}, &instance{
		values: map[string]string{"hostname": "vultr-guest", "instance_id": "a747bfz6385e", "region_code": "EWR", "public_ipv4": "192.0.2.110", "netmask": "255.255.254.0"},
		keys:   []string{"ssh-rsa AAAA", "ssh-rsa BBBB"}, userData: []byte("echo"),
		network: []link{{MAC: "56:00:03:15:c4:65", Addresses: []string{"192.0.2.110/23"}, Routes: []route{{To: "0.0.0.0/0", Via: "192.0.2.1"}}}},
	}},
	{"scaleway", fetchScaleway, "", map[string]string{
		"/conf?format=json": `{"id": "11111111-2222", "hostname": "scw-x", "commercial_type": "DEV1-S", "private_ip": "10.1.2.3", "public_ip": {"address": "203.0.113.5", "dynamic": true},
			"location": {"zone_id": "fr-par-1"}, "ssh_public_keys": [{"key": "ssh-ed25519 AAAA", "fingerprint": "256 MD5:…"}], "tags": []}`,
		"/user_data/cloud-init": "data",
	}, &instance{
		values: map[string]string{"hostname": "scw-x", "instance_id": "11111111-2222", "instance_type": "DEV1-S", "private_ip": "10.1.2.3", "public_ip": "203.0.113.5", "instance_location": "fr-par-1"},
		keys:   []string{"ssh-ed25519 AAAA"}, userData: []byte("data"),
	}},
	{"openstack", fetchOpenStack, "", map[string]string{
		"/openstack/latest/meta_data.json": `{"uuid": "d8e02d56-2648-49a3-bf97-6be8f1204f38", "availability_zone": "nova", "hostname": "test.novalocal", "project_id": "f7ac",
			"public_keys": {"mykey": "ssh-rsa AAAA Generated-by-Nova\n"}, "keys": [{"data": "…", "name": "mykey", "type": "ssh"}]}`,
		"/openstack/latest/user_data": "x",
		"/openstack/latest/network_data.json": `{"links": [{"ethernet_mac_address": "fa:16:3e:9c:bf:3d", "id": "tap1", "type": "vif", "mtu": 1450}],
			"networks": [{"id": "network0", "link": "tap1", "type": "ipv4", "ip_address": "10.184.0.244", "netmask": "255.255.240.0", "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.184.0.1"}, {"network": "10.9.0.0", "netmask": "255.255.0.0", "gateway": "10.184.0.9"}]},
				{"id": "network1", "link": "tap1", "type": "ipv6", "ip_address": "2001:db8::3", "netmask": "ffff:ffff:ffff:ffff::", "routes": [{"network": "::", "netmask": "::", "gateway": "fd00::1"}]},
				{"id": "network2", "link": "tap2", "type": "ipv4_dhcp"}],
			"services": [{"type": "dns", "address": "10.184.0.2"}]}`,
	}, &instance{
		values: map[string]string{"hostname": "test.novalocal", "local_hostname": "test.novalocal", "instance_id": "d8e02d56-2648-49a3-bf97-6be8f1204f38", "availability_zone": "nova", "project": "f7ac", "local_ipv4": "10.184.0.244"},
		keys:   []string{"ssh-rsa AAAA Generated-by-Nova"}, userData: []byte("x"),
		network: []link{{MAC: "fa:16:3e:9c:bf:3d", MTU: 1450, Addresses: []string{"10.184.0.244/20", "2001:db8::3/64"},
			Routes:      []route{{To: "0.0.0.0/0", Via: "10.184.0.1"}, {To: "10.9.0.0/16", Via: "10.184.0.9"}, {To: "::/0", Via: "fd00::1"}},
			Nameservers: []string{"10.184.0.2"}}},
	}},
	{"equinixmetal", fetchEquinixMetal, "", map[string]string{
		"/metadata": `{"id": "0ca1", "hostname": "node", "plan": "c3.small.x86", "facility": "sv15", "metro": "sv", "ssh_keys": ["ssh-rsa AAAA"],
			"network": {"bonding": {"mode": 4}, "interfaces": [{"name": "eth0", "mac": "e4:43:4b:00:00:01", "bond": "bond0"}],
			"addresses": [{"address_family": 4, "netmask": "255.255.255.254", "public": true, "cidr": 31, "address": "203.0.113.3", "gateway": "203.0.113.2"},
				{"address_family": 6, "public": true, "cidr": 127, "address": "2001:db8::3", "gateway": "2001:db8::2"},
				{"address_family": 4, "public": false, "cidr": 31, "address": "10.1.0.3", "gateway": "10.1.0.2"}]}}`,
		"/userdata": "#!ipxe\n",
	}, &instance{
		values: map[string]string{"hostname": "node", "instance_id": "0ca1", "instance_type": "c3.small.x86", "availability_zone": "sv15", "region": "sv", "public_ipv4": "203.0.113.3", "local_ipv4": "10.1.0.3"},
		keys:   []string{"ssh-rsa AAAA"},
		network: []link{{ID: "eth0", MAC: "e4:43:4b:00:00:01"}, {Kind: "bond", Name: "bond0", Over: []string{"eth0"}, Parameters: map[string]string{"mode": "802.3ad"}, Addresses: []string{"203.0.113.3/31", "2001:db8::3/127", "10.1.0.3/31"},
			Routes: []route{{To: "0.0.0.0/0", Via: "203.0.113.2"}, {To: "::/0", Via: "2001:db8::2"}}}},
	}},
}

func TestClouds(t *testing.T) {
	for _, test := range clouds {
		t.Run(test.name, func(t *testing.T) {
			server := httptest.NewServer(&answers{t, test.header, test.files})
			defer server.Close()
			found, err := test.fetch(t.Context(), quickClient(), server.URL)
			if err != nil {
				t.Fatal(err)
			}
			if len(found.userData) == 0 {
				found.userData = nil
			}
			if diff := cmp.Diff(test.want, found, cmp.AllowUnexported(instance{})); diff != "" {
				t.Errorf("instance (-want +got):\n%s", diff)
			}
		})
	}
}

// Many clouds use the same address: no provider may accept the service of
// another.
func TestCloudsRefuseOthers(t *testing.T) {
	for _, cloud := range clouds {
		server := httptest.NewServer(&answers{t, "", cloud.files})
		defer server.Close()
		for _, p := range providers {
			name, _, _ := strings.Cut(cloud.name, ",")
			if !p.remote() || p.name == name || p.name == "aws" { // AWS has its own tests
				continue
			}
			if _, err := p.fetch(t.Context(), quickClient(), server.URL); err == nil {
				t.Errorf("%s takes the service of %s for its own", p.name, name)
			}
		}
	}
}

// Invalid answers are errors.
func TestCloudsWrongAnswers(t *testing.T) {
	for _, wrong := range []string{"", "<html>", "[]", `{"instance": 1, "compute": 1, "hostname": 1, "uuid": 1}`} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, wrong) }))
		defer server.Close()
		for _, p := range providers {
			if !p.remote() || p.name == "aws" || p.name == "hetzner" { // Hetzner's values are bare text
				continue
			}
			if found, err := p.fetch(t.Context(), quickClient(), server.URL); err == nil {
				t.Errorf("%s takes %q: %+v", p.name, wrong, found)
			}
		}
	}
}

func TestAWSv1(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("X-aws-ec2-metadata-token") != "" {
			t.Errorf("%s %s: not version 1", r.Method, r.URL)
		}
		text, ok := fullInstance()[strings.TrimPrefix(r.URL.Path, "/latest/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, text)
	}))
	defer server.Close()
	found, err := fetchAWSv1(t.Context(), quickClient(), server.URL)
	if err != nil || found.values["instance_id"] != "i-0123456789abcdef0" || len(found.keys) != 2 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestCmdline(t *testing.T) {
	root := t.TempDir()
	if _, err := fetchCmdline(t.Context(), nil, root); err != errAbsent {
		t.Errorf("without the argument: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(root, "proc"), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{base64.StdEncoding.EncodeToString([]byte(`{"a":{"content":"b"}}`)): `{"a":{"content":"b"}}`, "%": "error"} {
		if err := os.WriteFile(filepath.Join(root, "proc/cmdline"), []byte("quiet metadata.userdata="+text+" x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		found, err := fetchCmdline(t.Context(), nil, root)
		if want == "error" {
			if err == nil || !strings.Contains(err.Error(), "kernel argument metadata.userdata: illegal base64") {
				t.Errorf("%s: %v", text, err)
			}
		} else if err != nil || string(found.userData) != want {
			t.Errorf("%s: %+v, %v", text, found, err)
		}
	}
}

func TestMedium(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	tests := []struct {
		name, label string
		medium      fstest.MapFS
		want        *instance
	}{
		{"NoCloud", "cidata", fstest.MapFS{"user-data": file("u"), "meta-data": file("instance-id: i1\nlocal-hostname: \"h1\"\nnested:\n  local-hostname: no\n"),
			"network-config": file("version: 2\nethernets: {eth0: {addresses: [192.0.2.7/24]}}\n")},
			&instance{values: map[string]string{"instance_id": "i1", "hostname": "h1", "metadata": "instance-id: i1\nlocal-hostname: \"h1\"\nnested:\n  local-hostname: no\n", "network-config": "version: 2\nethernets: {eth0: {addresses: [192.0.2.7/24]}}\n"}, userData: []byte("u"),
				network: []link{{ID: "eth0", Name: "eth0", Addresses: []string{"192.0.2.7/24"}}},
				ignored: []string{`meta-data: "nested" has no effect: it is only in the file metadata`}}},
		{"NoCloud with what has no effect", "cidata", fstest.MapFS{"user-data": file(""), "vendor-data": file("x"),
			"meta-data":      file("hostname: h1\npublic-keys: {a: {openssh-key: ssh-rsa A}, b: [ssh-rsa B]}\n"),
			"network-config": file("version: 1\nconfig: [{type: physical, name: eth0, subnets: [{type: dhcp, ipv4: true}], keep_configuration: true}]\n")},
			&instance{values: map[string]string{"hostname": "h1", "metadata": "hostname: h1\npublic-keys: {a: {openssh-key: ssh-rsa A}, b: [ssh-rsa B]}\n",
				"network-config": "version: 1\nconfig: [{type: physical, name: eth0, subnets: [{type: dhcp, ipv4: true}], keep_configuration: true}]\n"},
				keys: []string{"ssh-rsa A", "ssh-rsa B"}, userData: []byte{}, network: []link{{ID: "eth0", Name: "eth0", DHCP: true}},
				ignored: []string{
					"vendor-data is not supported: move it to user-data",
					`network-config: "config[0].subnets[0].ipv4" is not supported: remove it, or configure it with ip in an onboot container`,
					`network-config: "config[0].keep_configuration" is not supported: remove it, or configure it with ip in an onboot container`,
				}}},
		{"LinuxKit's CD", "", fstest.MapFS{"config": file(`{}`)}, &instance{values: map[string]string{}, userData: []byte(`{}`)}},
		{"configuration drive", "config-2", fstest.MapFS{"openstack/latest/meta_data.json": file(`{"hostname": "h"}`), "openstack/latest/user_data": file("u")},
			&instance{values: map[string]string{"hostname": "h", "local_hostname": "h"}, userData: []byte("u")}},
		{"some CD", "debian", fstest.MapFS{"README": file("x")}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			found, err := readMedium(test.medium, test.label)
			if test.want == nil {
				if err != errAbsent {
					t.Errorf("%+v, %v, want %v", found, err, errAbsent)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, found, cmp.AllowUnexported(instance{})); diff != "" {
				t.Errorf("instance (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGuestInfo(t *testing.T) {
	get := func(variables map[string]string) guestInfo {
		return func(key string) (string, error) { return variables[key], nil }
	}
	found, err := fetchGuestInfo(get(map[string]string{
		"guestinfo.metadata": "aW5zdGFuY2UtaWQ6IGkxCg==", "guestinfo.metadata.encoding": "base64",
		"guestinfo.userdata": "H4sIAAAAAAAAA8vIBACsKpPYAgAAAA==", "guestinfo.userdata.encoding": "gzip+base64",
	}))
	if err != nil || found.values["instance_id"] != "i1" || string(found.userData) != "hi" {
		t.Errorf("%+v, %v", found, err)
	}
	for name, metadata := range map[string]string{
		"plain":   "instance-id: i2\nnetwork:\n  version: 2\n  ethernets:\n    nics: {match: {macaddress: \"00:50:56:01:02:03\"}, addresses: [192.0.2.7/24]}\n",
		"encoded": `{"instance-id": "i2", "network": "` + base64.StdEncoding.EncodeToString([]byte("version: 2\nethernets: {nics: {match: {macaddress: \"00:50:56:01:02:03\"}, addresses: [192.0.2.7/24]}}")) + `", "network.encoding": "base64"}`,
	} {
		found, err := fetchGuestInfo(get(map[string]string{"guestinfo.metadata": metadata}))
		if err != nil || found.networkErr != nil {
			t.Fatal(name, err, found.networkErr)
		}
		if diff := cmp.Diff([]link{{ID: "nics", MAC: "00:50:56:01:02:03", Addresses: []string{"192.0.2.7/24"}}}, found.network); diff != "" {
			t.Errorf("%s: network (-want +got):\n%s", name, diff)
		}
	}
	if _, err := fetchGuestInfo(get(map[string]string{"guestinfo.userdata": "---"})); err != errAbsent {
		t.Errorf("nothing set: %v", err)
	}
	if _, err := fetchGuestInfo(get(map[string]string{"guestinfo.userdata": "x", "guestinfo.userdata.encoding": "rot13"})); err == nil {
		t.Error("an unknown encoding is not an error")
	}
}

// TestHostileMedium reads media whose files lead out of the medium, or are not
// files that end.
func TestHostileMedium(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, create := range map[string]func(file string) error{
		"absolute link": func(file string) error { return os.Symlink(secret, file) },
		"relative link": func(file string) error {
			to, err := filepath.Rel(filepath.Dir(file), secret)
			if err != nil {
				return err
			}
			return os.Symlink(to, file)
		},
		"device": func(file string) error { return os.Symlink("/dev/zero", file) },
		"FIFO":   func(file string) error { return unix.Mkfifo(file, 0o644) },
		"large": func(file string) error {
			if err := os.WriteFile(file, nil, 0o644); err != nil {
				return err
			}
			return os.Truncate(file, maxSource+1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := create(filepath.Join(dir, "user-data")); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() {
				_, err := readRoot(dir, noCloudLabel)
				done <- err
			}()
			select {
			case err := <-done:
				if err == nil || errors.Is(err, errAbsent) {
					t.Errorf("error %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the reader waits")
			}
		})
	}
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "data"), []byte("u"), 0o644), os.Symlink("data", filepath.Join(dir, "user-data"))); err != nil {
		t.Fatal(err)
	}
	if found, err := readRoot(dir, noCloudLabel); err != nil || string(found.userData) != "u" {
		t.Errorf("a link on the medium: %+v, %v", found, err)
	}
}

// The keys in cloud-init's meta-data have several forms.
func TestMetaDataKeys(t *testing.T) {
	for text, want := range map[string][]string{
		"public-keys: key a":                           {"key a"},
		"public-keys: [key a, key b]":                  {"key a", "key b"},
		"public-keys: {one: key a, two: [key b, '']}":  {"key a", "key b"},
		"public-keys: |\n  key a\n  key b\n":           {"key a", "key b"},
		"public-keys: null":                            nil,
		"instance-id: i":                               nil,
		"x: &x [key a]\npublic-keys: [*x, {a: key b}]": {"key b"},
	} {
		found := newInstance()
		found.addMetaData([]byte(text))
		if !slices.Equal(found.keys, want) {
			t.Errorf("%q: got %q, want %q", text, found.keys, want)
		}
	}
}
