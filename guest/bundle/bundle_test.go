package bundle

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

func writeBundle(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "000-setup")
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpen(t *testing.T) {
	dir := writeBundle(t, map[string]string{"runtime.json": `{
    "cgroups": ["podruntime/kubelet"],
    "mounts": [
        {"destination": "/containers/onboot/000-setup/tmp", "source": "tmpfs", "type": "tmpfs"},
        {"destination": "log", "source": "/var/log", "options": ["bind"]}
    ],
    "mkdir": ["/var/lib/setup", "made/inside"],
    "interfaces": [{"name": "veth0", "add": "veth", "createInRoot": false, "peer": "veth1"}],
    "bindNS": {"cgroup": "", "net": "/run/ns/net"},
    "namespace": "system"
}`})
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := &Bundle{Dir: dir, Name: "000-setup", Runtime: runtimejson.Runtime{
		Cgroups: []string{"podruntime/kubelet"},
		Mounts: []specs.Mount{
			{Destination: "/containers/onboot/000-setup/tmp", Source: "tmpfs", Type: "tmpfs"},
			{Destination: "log", Source: "/var/log", Options: []string{"bind"}},
		},
		Mkdir:      []string{"/var/lib/setup", "made/inside"},
		Interfaces: []runtimejson.Interface{{Name: "veth0", Add: "veth", Peer: "veth1"}},
		BindNS:     map[string]string{"cgroup": "", "net": "/run/ns/net"},
		Namespace:  "system",
	}}
	if diff := cmp.Diff(want, b, cmp.AllowUnexported(Bundle{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestOpenWithout(t *testing.T) {
	dir := writeBundle(t, map[string]string{"config.json": "{}"})
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Bundle{Dir: dir, Name: "000-setup"}, b, cmp.AllowUnexported(Bundle{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestOpenFaulty(t *testing.T) {
	dir := writeBundle(t, map[string]string{"runtime.json": `{"mounts": {}}`})
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), dir+"/runtime.json") {
		t.Errorf("error %v does not name the file", err)
	}
}

func TestList(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"010-b", "002-c", "001-a"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "000-file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := List(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{filepath.Join(dir, "001-a"), filepath.Join(dir, "002-c"), filepath.Join(dir, "010-b")}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, err := List(filepath.Join(dir, "none")); got != nil || err != nil {
		t.Errorf("List of a missing directory: %q, %v", got, err)
	}
}

// The path becomes absolute. Everything else stays unchanged, even if it is
// unknown.
func TestSpec(t *testing.T) {
	dir := writeBundle(t, map[string]string{"config.json": `{
    "ociVersion": "1.2.1",
    "root": {"path": "rootfs", "readonly": true},
    "process": {"args": ["/bin/x", "<>&"], "user": {"uid": 0, "gid": 18446744073709551615}},
    "future": {"of": ["the", "specification"]}
}`})
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	spec, err := b.Spec(nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(string(config), `"rootfs"`, `"`+dir+`/rootfs"`, 1)
	if diff := cmp.Diff(decode(t, want), decode(t, string(spec))); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func decode(t *testing.T, text string) (value any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return value
}

func TestSpecAnnotations(t *testing.T) {
	for annotations, want := range map[string]string{
		``:                                   `"annotations": {"group": "machine"}`,
		`"annotations": null`:                `"annotations": {"group": "machine"}`,
		`"annotations": {"a":"b"}, "x":1.50`: `"annotations": {"a":"b", "group": "machine"}, "x":1.50`,
		`"annotations": {"group":"mine"}`:    `"annotations": {"group":"mine"}`,
		`"annotations": {"group":""}`:        `"annotations": {"group":"machine"}`,
	} {
		config := func(annotations, path string) string {
			return strings.Replace(`{"root": {"path": "`+path+`"}, `+annotations+`}`, ", }", "}", 1)
		}
		dir := writeBundle(t, map[string]string{"config.json": config(annotations, "rootfs")})
		spec, err := (&Bundle{Dir: dir}).Spec(map[string]string{"group": "machine"})
		if err != nil {
			t.Errorf("%s: %v", annotations, err)
			continue
		}
		if diff := cmp.Diff(decode(t, config(want, dir+"/rootfs")), decode(t, string(spec))); diff != "" {
			t.Errorf("%s: -want +got\n%s", annotations, diff)
		}
	}
	dir := writeBundle(t, map[string]string{"config.json": `{"root": {"path": "rootfs"}, "annotations": []}`})
	_, err := (&Bundle{Dir: dir}).Spec(map[string]string{"group": "machine"})
	if err == nil || !strings.Contains(err.Error(), "annotations: json: cannot unmarshal array into Go value of type map[string]string") {
		t.Errorf("annotations that are a list: %v", err)
	}
}

func TestSpecFaulty(t *testing.T) {
	for _, config := range []string{"{}", "", `{"root": {}}`, `{"root": {"path": 1}}`, `[]`} {
		dir := writeBundle(t, map[string]string{"config.json": config})
		if _, err := (&Bundle{Dir: dir}).Spec(nil); err == nil || !strings.Contains(err.Error(), dir+"/config.json") {
			t.Errorf("config.json %q: error %v does not name the file", config, err)
		}
	}
}

func TestParseOptions(t *testing.T) {
	for _, test := range []struct {
		options     string
		flags       uintptr
		propagation []uintptr
		data        string
	}{
		{"", 0, nil, ""},
		{"rw,rbind,rshared", unix.MS_BIND | unix.MS_REC, []uintptr{unix.MS_SHARED | unix.MS_REC}, ""},
		{"remount,private", unix.MS_REMOUNT, []uintptr{unix.MS_PRIVATE}, ""},
		{"nosuid,nodev,noexec,relatime,ro", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME | unix.MS_RDONLY, nil, ""},
		{"lowerdir=/l,upperdir=/u,workdir=/w", 0, nil, "lowerdir=/l,upperdir=/u,workdir=/w"},
		{"size=1m,ro,mode=0700", unix.MS_RDONLY, nil, "size=1m,mode=0700"},
		{"ro,rw", 0, nil, ""},
		{"defaults,nosuid,suid", 0, nil, ""},
	} {
		flags, propagation, data := parseOptions(strings.FieldsFunc(test.options, func(c rune) bool { return c == ',' }))
		if flags != test.flags || !slices.Equal(propagation, test.propagation) || data != test.data {
			t.Errorf("%q: flags %#x, propagation %#x, data %q; want %#x, %#x, %q",
				test.options, flags, propagation, data, test.flags, test.propagation, test.data)
		}
	}
}
