package ami_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// leaky returns a disk that boots with BIOS and has files on an EFI system
// partition.
func leaky(t testing.TB, files map[string]string) []byte {
	t.Helper()
	const first, size = 2048 * 512, 34 << 20
	var list []fat.File
	for name, content := range files {
		list = append(list, fat.File{Path: name, Parts: []fat.Part{{Content: sparse.Bytes([]byte(content))}}})
	}
	volume, err := fat.New(size, list, fat.Options{Offset: first / 512})
	if err != nil {
		t.Fatal(err)
	}
	esp, err := volume.Image(0)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, first+size)
	if _, err := esp.ReadAt(data[first:], 0); err != nil {
		t.Fatal(err)
	}
	copy(data, "\xfa\xf4")                                                         // boot code
	copy(data[446:], []byte{0x80, 0, 0, 0, 0xef, 0, 0, 0, 0, 8, 0, 0, 0, 0, 1, 1}) // an active partition at sector 2048
	data[446+12], data[446+13], data[446+14], data[446+15] = 0, 0x10, 0x01, 0      // of 34 MiB
	copy(data[510:], "\x55\xaa")
	return data
}

// TestSecrets refuses to share a disk with secrets with everyone, before any
// request, unless they are allowed.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const key = "-----BEGIN PRIVATE " + "KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj\n"
	d := write(t, leaky(t, map[string]string{"etc/web.key": key, "root/.ssh/authorized_keys": "ssh-ed25519 AAAAC3Nz user@host\n"}))
	const warning = `"etc/web.key": a private key`
	for what, test := range map[string]struct {
		share, allow []string
		warnings     int
		refused      string
	}{
		"private":           {nil, nil, 1, ""},
		"one account":       {[]string{"123456789012"}, nil, 1, ""},
		"public":            {[]string{"all"}, nil, 2, warning},
		"one allowed":       {[]string{"all"}, []string{"/etc/web.key"}, 1, `"root/.ssh/authorized_keys": 1 ssh keys`},
		"similar name":      {[]string{"all"}, []string{"root/.ssh", "etc/web"}, 1, warning},
		"all allowed":       {[]string{"123456789012", "all"}, []string{"etc", "root/.ssh/authorized_keys"}, 0, ""},
		"allowed, not used": {nil, []string{"etc/web.key", "other"}, 0, ""},
	} {
		fake := start(t, awstest.Knobs{})
		o := ami.Options{Name: "machine-1", Share: test.share, AllowSecrets: test.allow, State: t.TempDir()}
		p, err := ami.New(d, o)
		if err != nil {
			t.Fatal(err)
		}
		warnings, err := p.SecretWarnings(t.Context())
		if err != nil || len(warnings) != test.warnings || !slices.Contains(test.allow, "etc/web.key") && test.warnings == 2 && warnings[0] != warning {
			t.Errorf("%s: got %q, %v", what, warnings, err)
		}
		_, dryErr := p.Preflight(t.Context(), configure(t, fake))
		_, err = p.Publish(t.Context(), configure(t, fake))
		if test.refused == "" {
			if err != nil || dryErr != nil {
				t.Errorf("%s: %v, %v", what, dryErr, err)
			}
			continue
		}
		for _, err := range []error{err, dryErr} {
			if ami.ClassOf(err) != ami.ClassDisk || !strings.Contains(err.Error(), test.refused) || !strings.Contains(err.Error(), "--allow-secret") {
				t.Errorf("%s: error %v, want %s", what, err, test.refused)
			}
		}
		if n := len(fake.Requests()); n > 0 {
			t.Errorf("%s: %d requests", what, n)
		}
	}
}
