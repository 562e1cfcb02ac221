package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/internal/contract/reserve"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// listing returns every file and directory below dir with its mode and content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text := ""
		if info.Mode().IsRegular() {
			contents, err := os.ReadFile(filepath.Join(dir, path))
			if err != nil {
				return err
			}
			text = " " + string(contents)
		}
		found[path] = info.Mode().String() + text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func fixed(found *instance) []provider {
	return []provider{{name: "test", title: "Test", fetch: func(context.Context, *client, string) (*instance, error) { return found, nil }}}
}

func TestRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "config")
	var hostname string
	err := run(t.Context(), fixed(&instance{
		values:   map[string]string{"hostname": "ip-10-0-0-7", "instance_id": "i-1"},
		keys:     []string{"ssh-ed25519 AAAA alice", "ssh-rsa BBBB bob"},
		userData: []byte(`{"app": {"entries": {"key": {"content": "s\n", "perm": "0400"}}}}`),
	}), host{dir: dir, setHostname: func(name []byte) error {
		hostname = string(name)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"provider":            "-rw-r--r-- Test",
		"hostname":            "-rw-r--r-- ip-10-0-0-7",
		"instance_id":         "-rw-r--r-- i-1",
		"ssh":                 "drwxr-xr-x",
		"ssh/authorized_keys": "-rw------- ssh-ed25519 AAAA alice\nssh-rsa BBBB bob\n",
		"userdata":            `-rw-r--r-- {"app": {"entries": {"key": {"content": "s\n", "perm": "0400"}}}}`,
		"app":                 "drwxr-xr-x",
		"app/key":             "-r-------- s\n",
	}
	if diff := cmp.Diff(want, listing(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	if hostname != "ip-10-0-0-7" {
		t.Errorf("host name set to %q", hostname)
	}
}

// Services bind these two files, so they must exist.
func TestRunWritesEmptyFiles(t *testing.T) {
	dir := t.TempDir()
	err := run(t.Context(), fixed(&instance{}), host{dir: dir, setHostname: func(name []byte) error {
		t.Errorf("host name set to %q although the provider has none", name)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"provider": "-rw-r--r-- Test", "ssh": "drwxr-xr-x", "ssh/authorized_keys": "-rw------- ", "userdata": "-rw-r--r-- "}
	if diff := cmp.Diff(want, listing(t, dir)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// As in LinuxKit, the tree is written last and may replace keys and host name.
// A second run replaces files of the first.
func TestRunTreeReplaces(t *testing.T) {
	dir := t.TempDir()
	var hostname string
	for _, userData := range []string{"", `{"hostname": {"content": "chosen\n"}, "ssh": {"entries": {"authorized_keys": {"content": "mine", "perm": "0600"}}}}`} {
		err := run(t.Context(), fixed(&instance{
			values:   map[string]string{"hostname": "given"},
			keys:     []string{"theirs"},
			userData: []byte(userData),
		}), host{dir: dir, setHostname: func(name []byte) error {
			hostname = string(name)
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := listing(t, dir)["ssh/authorized_keys"]; got != "-rw------- mine" {
		t.Errorf("authorized_keys: %s", got)
	}
	if hostname != "chosen" {
		t.Errorf("host name set to %q", hostname)
	}
}

// Host names that are none are not set, wherever they come from.
func TestRunInvalidHostname(t *testing.T) {
	for _, found := range []*instance{
		{values: map[string]string{"hostname": "-x"}},
		{userData: []byte(`{"hostname": {"content": "-x"}}`)},
	} {
		err := run(t.Context(), fixed(found), host{dir: t.TempDir(), setHostname: func(name []byte) error {
			t.Errorf("host name set to %q", name)
			return nil
		}})
		if err == nil || !strings.Contains(err.Error(), `host name "-x": must have`) {
			t.Errorf("error %v", err)
		}
	}
}

// An invalid tree is rejected as a whole. Everything else is done.
func TestRunFaultyTree(t *testing.T) {
	dir := t.TempDir()
	named := false
	err := run(t.Context(), fixed(&instance{
		values:   map[string]string{"hostname": "h"},
		keys:     []string{"k"},
		userData: []byte(`{"a": {"content": "x"}, "b": {"entries": {"..": {"content": "x"}}}}`),
	}), host{dir: dir, setHostname: func([]byte) error {
		named = true
		return errors.New("operation not permitted")
	}})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{`user data: entry "b/..": not a file name (not unpacked)`, `set the host name to "h": operation not permitted`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	files := listing(t, dir)
	if _, ok := files["a"]; ok || files["ssh/authorized_keys"] != "-rw------- k\n" || !named {
		t.Errorf("files %v, host name set: %t", files, named)
	}
}

// Symbolic links in the directory do not lead out of it.
func TestConfigIsConfined(t *testing.T) {
	outside := t.TempDir()
	dir := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "ssh")); err != nil {
		t.Fatal(err)
	}
	err := run(t.Context(), fixed(&instance{}), host{dir: dir})
	if err == nil || !strings.Contains(err.Error(), "ssh") {
		t.Errorf("error %v, want one about ssh", err)
	}
	if files := listing(t, outside); len(files) > 0 {
		t.Errorf("written through the link: %v", files)
	}
}

// The network data is written, and configured on request.
func TestRunWritesNetwork(t *testing.T) {
	dir := t.TempDir()
	found := newInstance()
	found.network = []link{{MAC: "52:54:00:12:34:56", Addresses: []string{"192.0.2.7/24"}, Routes: []route{{To: "0.0.0.0/0", Via: "192.0.2.1"}}, Nameservers: []string{"192.0.2.2"}}}
	found.networkErr = errors.New("not all is understood")
	if err := run(t.Context(), fixed(found), host{dir: dir}); err != nil {
		t.Fatal(err)
	}
	var configured []link
	err := run(t.Context(), fixed(found), host{dir: dir, configure: func(links []link) error {
		configured = links
		return errors.New("no such interface")
	}})
	if err == nil || err.Error() != "not all is understood\nno such interface" {
		t.Errorf("error %v", err)
	}
	if diff := cmp.Diff(found.network, configured); diff != "" {
		t.Errorf("configured (-want +got):\n%s", diff)
	}
	want := `-rw-r--r-- [
	{
		"mac": "52:54:00:12:34:56",
		"addresses": [
			"192.0.2.7/24"
		],
		"routes": [
			{
				"to": "0.0.0.0/0",
				"via": "192.0.2.1"
			}
		],
		"nameservers": [
			"192.0.2.2"
		]
	}
]
`
	if diff := cmp.Diff(want, listing(t, dir)["network.json"]); diff != "" {
		t.Errorf("network.json (-want +got):\n%s", diff)
	}
}

func TestChoose(t *testing.T) {
	names := func(chosen []provider) (list string) {
		for _, p := range chosen {
			list += " " + p.name
		}
		return list
	}
	const all = " cmdline reserve vmware cdrom aws gcp azure hetzner digitalocean vultr scaleway openstack equinixmetal"
	dmi := func(field, value string) platform { return platform{dmi: map[string]string{field: value}} }
	tests := []struct {
		name    string
		args    []string
		here    platform
		want    string
		certain bool
	}{
		{"unknown machine", nil, dmi("sys_vendor", "QEMU"), all, false},
		{"no SMBIOS", nil, platform{}, all, false},
		{"Nitro", nil, dmi("sys_vendor", "Amazon EC2"), " aws", true},
		{"EC2 on Xen", nil, dmi("product_uuid", "EC2AB3C0-1D2E-4F5A-8B6C-7D8E9F0A1B2C"), " aws", true},
		{"EC2 on Xen, by version", nil, dmi("product_version", "4.11.amazon"), " aws", true},
		{"Google", nil, dmi("product_name", "Google Compute Engine"), " gcp", true},
		{"Azure", nil, dmi("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"), " azure", true},
		{"Hyper-V elsewhere", nil, dmi("sys_vendor", "Microsoft Corporation"), all, false},
		{"Hetzner", nil, dmi("sys_vendor", "Hetzner"), " hetzner", true},
		{"DigitalOcean", nil, dmi("sys_vendor", "DigitalOcean"), " digitalocean", true},
		{"Vultr", nil, dmi("sys_vendor", "Vultr"), " vultr", true},
		{"Scaleway", nil, dmi("sys_vendor", "Scaleway"), " scaleway", true},
		{"Nova", nil, dmi("product_name", "OpenStack Nova"), " openstack", true},
		{"VMware", nil, dmi("sys_vendor", "VMware, Inc."), " vmware", true},
		{"kernel argument before a cloud", nil, platform{dmi: map[string]string{"sys_vendor": "Hetzner"}, cmdline: cmdline.Parse("a metadata.userdata=eA== b"), reserved: true}, " cmdline", true},
		{"data in the image before a cloud", nil, platform{dmi: map[string]string{"sys_vendor": "Hetzner"}, reserved: true}, " reserve", true},
		{"named", []string{"aws"}, dmi("sys_vendor", "Hetzner"), " aws", true},
		{"several", []string{"cdrom", "file=/x", "aws=v1"}, platform{}, " cdrom file aws", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			chosen, certain, err := choose(test.args, test.here)
			if err != nil || names(chosen) != test.want || certain != test.certain {
				t.Errorf("%s, certain: %t, error: %v; want%s, certain: %t", names(chosen), certain, err, test.want, test.certain)
			}
		})
	}
	if _, _, err := choose([]string{"aws", "awz"}, platform{}); err == nil || !strings.HasPrefix(err.Error(), `unknown provider "awz" (providers: cmdline, reserve, vmware, `) {
		t.Errorf("awz: %v", err)
	}
}

func TestReadPlatform(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{"sys/class/dmi/id/sys_vendor": "Amazon EC2\n", "proc/cmdline": `console=ttyS0 x=1 x="2 3" note="y=1 y=2"`} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p := readPlatform(root)
	if value, ok := p.argument("x"); !p.has("sys_vendor", "amazon") || p.has("product_name", "x") || !ok || value != "2 3" {
		t.Errorf("%+v", p)
	}
	if value, ok := p.argument("y"); ok {
		t.Errorf("found y=%s inside the quotes of another argument", value)
	}
}

// TestReserve checks that user data that is written into an image is found, and
// that an empty reserved file is no provider.
func TestReserve(t *testing.T) {
	root := t.TempDir()
	fetch := func() (*instance, error) { return fetchReserve(t.Context(), nil, root) }
	if _, err := fetch(); !errors.Is(err, errAbsent) {
		t.Errorf("without a file: %v", err)
	}
	name := filepath.Join(root, "hostroot", reserve.Path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"", "#cloud-config\n"} {
		file, err := reserve.Encode([]byte(data), 512)
		if err == nil {
			err = os.WriteFile(name, file, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		found, err := fetch()
		if p := readPlatform(root); p.reserved != (data != "") {
			t.Errorf("%q: the platform has data: %t", data, p.reserved)
		}
		if data == "" && !errors.Is(err, errAbsent) || data != "" && (err != nil || string(found.userData) != data) {
			t.Errorf("%q: %v, %v", data, found, err)
		}
	}
	if err := os.WriteFile(name, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := fetch(); err == nil || errors.Is(err, errAbsent) {
		t.Errorf("damaged: %v", err)
	}
}

// service returns a provider that answers after a time, or fails.
func service(name string, after time.Duration, err error) provider {
	return provider{name: name, source: "http://" + name, fetch: func(ctx context.Context, _ *client, _ string) (*instance, error) {
		select {
		case <-time.After(after):
			return newInstance(), err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}
}

func TestAsk(t *testing.T) {
	never := time.Hour
	absent := provider{name: "local", fetch: func(context.Context, *client, string) (*instance, error) { return nil, errAbsent }}
	refused := errors.New("refused")
	tests := []struct {
		name   string
		chosen []provider
		want   string // a name, or the error
		took   time.Duration
	}{
		{"what is in the machine asks nobody", []provider{fixed(newInstance())[0], service("a", 0, nil)}, "test", 0},
		{"all at once", []provider{absent, service("a", 2*time.Second, refused), service("b", 3*time.Second, nil)}, "b", 3 * time.Second},
		{"the preferred of two that answer", []provider{service("a", 5*time.Second/2, nil), service("b", 2*time.Second, nil)}, "a", 5 * time.Second / 2},
		{"a silent one is not waited for long", []provider{service("a", never, nil), service("b", 2*time.Second, nil)}, "b", 3 * time.Second},
		{"nobody below is waited for", []provider{service("a", time.Second, nil), service("b", never, nil)}, "a", time.Second},
		{"none", []provider{absent, service("a", time.Second, refused), service("b", never, nil)},
			"local: not on this machine\na: refused\nb: context deadline exceeded", 10 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				start := time.Now()
				p, found, err := ask(ctx, test.chosen)
				got := p.name
				if err != nil {
					got = err.Error()
				} else if found == nil {
					t.Error("no instance")
				}
				if took := time.Since(start); got != test.want || took != test.took {
					t.Errorf("%q after %s, want %q after %s", got, took, test.want, test.took)
				}
			})
		})
	}
}
