package contract_test

import (
	"io/fs"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/slipway-build/slipway/internal/contract"
)

// The names are those of LinuxKit, whose packages rely on them.
func TestBundle(t *testing.T) {
	for _, c := range []struct {
		section string
		index   int
		want    string
	}{
		{contract.Onboot, 0, "containers/onboot/000-a"},
		{contract.Onshutdown, 12, "containers/onshutdown/012-a"},
		{contract.Services, 3, "containers/services/a"},
	} {
		if got := contract.Bundle(c.section, c.index, "a"); got != c.want {
			t.Errorf("%s %d: %q, want %q", c.section, c.index, got, c.want)
		}
	}
}

func TestXattrs(t *testing.T) {
	x := contract.Xattrs{"bin/ping": {"user.b": []byte(`"2"`), "security.capability": []byte("\x01\x00\xff\n")}}
	data, err := x.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"bin/ping":{"security.capability":"AQD/Cg==","user.b":"IjIi"}}`; string(data) != want {
		t.Errorf("got %s, want %s", data, want)
	}
	for _, c := range []struct {
		x    contract.Xattrs
		want string
	}{
		{contract.Xattrs{"bin/\xff": nil}, `extended attributes of "bin/\xff": not a valid UTF-8 path below the root`},
		{contract.Xattrs{"../x": nil}, `extended attributes of "../x": not a valid UTF-8 path below the root`},
		{contract.Xattrs{"x": {"user.\xff": nil}}, `extended attribute "user.\xff" of x: the name is not valid UTF-8`},
	} {
		if _, err := c.x.Marshal(); err == nil || err.Error() != c.want {
			t.Errorf("%q: error %v, want %q", c.x, err, c.want)
		}
	}
	for _, data := range []string{"", "[]", `{"../../etc/passwd":{"user.a":""}}`, `{"/etc/passwd":{"user.a":""}}`} {
		if _, err := contract.UnmarshalXattrs([]byte(data)); err == nil {
			t.Errorf("%s: no error", data)
		}
	}
}

// Each list that can be written is read unchanged, and each that can be read is
// written unchanged.
func FuzzXattrs(f *testing.F) {
	f.Add("bin/ping", "security.capability", []byte{1, 0, 0xff}, []byte(`{"a":{"user.x":"AA=="}}`))
	f.Add("../x", "user.<&>", []byte(nil), []byte(`{"a":null}`))
	f.Fuzz(func(t *testing.T, path, name string, value, file []byte) {
		equal := func(x contract.Xattrs) {
			data, err := x.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			back, err := contract.UnmarshalXattrs(data)
			if diff := cmp.Diff(x, back, cmpopts.EquateEmpty()); err != nil || diff != "" {
				t.Errorf("%s: %v\n%s", data, err, diff)
			}
		}
		if x, err := contract.UnmarshalXattrs(file); err == nil {
			equal(x)
		}
		if fs.ValidPath(path) && utf8.ValidString(name) {
			equal(contract.Xattrs{path: {name: value}})
		}
	})
}
