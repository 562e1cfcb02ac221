package machine_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/machine"
)

// services returns n services that use one image, each with more keys.
func services(n int, keys func(i int) string) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for i := range n {
		fmt.Fprintf(&b, "- name: s%d\n  image: example.test/service:v1\n  %s\n", i, keys(i))
	}
	return b.String()
}

// after returns an annotation that orders services.
func after(names ...string) string {
	return fmt.Sprintf("annotations: {build.slipway.after: %q}", strings.Join(names, ","))
}

// A machine with many services is planned in seconds, and the text of its
// errors stays in proportion, even if all names and their order are wrong.
func TestManyServices(t *testing.T) {
	const n = 5000
	images := map[string]machine.Image{"example.test/service:v1": {}}
	for name, test := range map[string]struct {
		keys       func(i int) string
		want       string // start of the first error
		most, size int    // of the errors
	}{
		"chain":            {keys: func(i int) string { return after(fmt.Sprintf("s%d", max(i, 1)-1)) }, want: "services wait for each other (annotation build.slipway.after): s0 waits for s0", most: 1, size: 100},
		"cycle":            {keys: func(i int) string { return after(fmt.Sprintf("s%d", (i+1)%n)) }, want: "services wait for each other (annotation build.slipway.after): s0 waits for s1 waits for s2 waits for s3 waits for s4 waits for … waits for s4997 waits for s4998 waits for s4999 waits for s0", most: 1, size: 300},
		"many cycles":      {keys: func(i int) string { return after(fmt.Sprintf("s%d", (i+1)%n), "s0") }, want: "services wait for each other", most: 100, size: 30_000},
		"unknown services": {keys: func(int) string { return after("database") }, want: `annotation build.slipway.after of service "s0" names "database"`, most: n, size: 200 * n},
		"unknown users":    {keys: func(int) string { return "uid: s" }, want: `uid "s" in service "s0"`, most: n, size: 200 * n},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte(services(n, test.keys))})
			if err == nil {
				_, err = m.Plan(images)
			}
			var found machine.Diagnostics
			if !errors.As(err, &found) {
				t.Fatal(err)
			}
			if !strings.HasPrefix(found[0].Message, test.want) {
				t.Errorf("first error %q, want %q", found[0].Message, test.want)
			}
			if size := len(err.Error()); len(found) > test.most || size > test.size {
				t.Errorf("%d errors in %d bytes, want at most %d in %d", len(found), size, test.most, test.size)
			}
		})
	}
}

// A path that Linux rejects is an error. Its parents would also take space that
// grows with the square of its length.
func TestPathLimits(t *testing.T) {
	long := strings.Repeat("a/", 2047) // 4,094 bytes
	for path, want := range map[string]string{
		long + "b":                        "",
		"/" + long + "b/":                 "",
		long + "bb":                       "must be at most 4095 bytes long",
		strings.Repeat("n", 255):          "",
		"etc/" + strings.Repeat("ä", 128): "must not contain a name longer than 255 bytes",
	} {
		_, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte("files:\n- path: " + path + "\n  contents: x\n")})
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasSuffix(err.Error(), want)) {
			t.Errorf("%d bytes: %.300v, want %q", len(path), err, want)
		}
	}
}

// TestSymlinkLimits checks that the target of a symbolic link that Linux rejects
// is an error on the line.
func TestSymlinkLimits(t *testing.T) {
	for target, want := range map[string]string{
		strings.Repeat("x", 4095): "",
		strings.Repeat("x", 4096): "machine.yml:3: symlink in file",
		`"a\0b"`:                  "machine.yml:3: symlink in file",
	} {
		_, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte("files:\n- path: etc/a\n  symlink: " + target + "\n")})
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%d bytes: %.300v, want %q", len(target), err, want)
		}
	}
}

// BenchmarkAfter plans a chain of services. The time per service must not
// depend on their number.
func BenchmarkAfter(b *testing.B) {
	for _, n := range []int{1000, 4000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := parse(b, services(n, func(i int) string {
				if i == 0 {
					return "annotations: {}"
				}
				return after(fmt.Sprintf("s%d", i-1))
			}))
			images := map[string]machine.Image{"example.test/service:v1": {}}
			for b.Loop() {
				if _, err := m.Plan(images); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(n), "µs/service")
		})
	}
}
