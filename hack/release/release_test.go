package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newTestRelease(t *testing.T) (*release, []extra) {
	t.Helper()
	r := &release{version: "1.2.3-rc.1", out: t.TempDir(), root: t.TempDir(), work: t.TempDir(), time: time.Unix(1e9, 0).UTC()}
	write := func(name string) string {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(filepath.Base(name)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	for _, p := range []platform{{"linux", "amd64"}, {"windows", "arm64"}} {
		r.platforms = append(r.platforms, p)
		for _, name := range programs {
			write(filepath.Join(r.programFolder(p), p.program(name)))
		}
	}
	return r, []extra{
		{write(filepath.Join(r.root, "CHANGELOG.md")), "CHANGELOG.md", ""},
		{write(filepath.Join(r.root, "LICENSE")), "LICENSE", ""},
		{write(filepath.Join(r.work, "slipway.1")), "man/slipway.1", "/usr/share/man/man1/slipway.1"},
	}
}

// The files are the same at another time.
func TestReproducible(t *testing.T) {
	sums := map[string][]string{}
	for range 2 {
		r, extras := newTestRelease(t)
		for _, p := range r.platforms {
			if err := r.archive(p, extras); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.formula(); err != nil {
			t.Fatal(err)
		}
		if err := r.checksums(); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadFile(filepath.Join(r.out, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(list)) {
			sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
			sums[name] = append(sums[name], sum)
		}
		time.Sleep(1100 * time.Millisecond) // archives have whole seconds
	}
	for _, name := range []string{"slipway_1.2.3-rc.1_linux_amd64.tar.gz", "slipway_1.2.3-rc.1_windows_arm64.zip", "slipway.rb"} {
		if s := sums[name]; len(s) != 2 || s[0] != s[1] {
			t.Errorf("%s: digests %q", name, s)
		}
	}
	if len(sums) != 3 {
		t.Errorf("files %v", sums)
	}
}

func TestArchives(t *testing.T) {
	r, extras := newTestRelease(t)
	for _, p := range r.platforms {
		if err := r.archive(p, extras); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(filepath.Join(r.out, "slipway_1.2.3-rc.1_linux_amd64.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for in := tar.NewReader(z); ; {
		h, err := in.Next()
		if err != nil {
			break
		}
		got[h.Name] = h.Mode
	}
	const folder = "slipway_1.2.3-rc.1_linux_amd64/"
	if len(got) != 5 || got[folder+"slipway"] != 0o755 || got[folder+"slipway-publish"] != 0o755 || got[folder+"man/slipway.1"] != 0o644 {
		t.Errorf("members %v", got)
	}
	windows, err := zip.OpenReader(filepath.Join(r.out, "slipway_1.2.3-rc.1_windows_arm64.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer windows.Close()
	if !slices.ContainsFunc(windows.File, func(f *zip.File) bool { return f.Name == "slipway_1.2.3-rc.1_windows_arm64/slipway.exe" }) {
		t.Error("no slipway.exe")
	}
}

// Files are where Debian and Fedora expect them.
func TestDescribe(t *testing.T) {
	r, extras := newTestRelease(t)
	extras = append(extras, extra{extras[0].file, "completions/slipway.zsh", "/usr/share/zsh/vendor-completions/_slipway"})
	for format, want := range map[string][]string{
		"deb": {"/usr/bin/slipway", "/usr/bin/slipway-publish", "/usr/share/doc/slipway/changelog.Debian.gz",
			"/usr/share/doc/slipway/changelog.gz", "/usr/share/doc/slipway/copyright", "/usr/share/lintian/overrides/slipway",
			"/usr/share/man/man1/slipway.1.gz", "/usr/share/zsh/vendor-completions/_slipway"},
		"rpm": {"/usr/bin/slipway", "/usr/bin/slipway-publish", "/usr/share/doc/slipway/CHANGELOG.md", "/usr/share/doc/slipway/LICENSE",
			"/usr/share/man/man1/slipway.1.gz", "/usr/share/zsh/site-functions/_slipway"},
	} {
		d, err := r.describe(format, r.platforms[0], extras)
		if err != nil {
			t.Fatal(err)
		}
		if d.Version != "1.2.3" || d.Prerelease != "rc.1" {
			t.Errorf("%s: version %s, pre-release %s", format, d.Version, d.Prerelease)
		}
		var got []string
		for _, c := range d.Contents {
			got = append(got, c.Destination)
			if _, err := os.Stat(c.Source); err != nil {
				t.Error(err)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", format, got, want)
		}
	}
}

func TestVersion(t *testing.T) {
	for number, want := range map[string]bool{"1.2.3": true, "1.2.3-rc.1": true, "v1.2.3": false, "1.2": false, "1.2.3+a": false, "01.2.3": false} {
		if version.MatchString(number) != want {
			t.Errorf("%s: %t, want %t", number, !want, want)
		}
	}
}

func TestPin(t *testing.T) {
	r := &release{version: "1.2.3"}
	got := r.pin([]byte("# syntax=slipwaybuild/slipway:1\n# of slipwaybuild/node_exporter:v1\nimage: slipwaybuild/sshd:v1-20261123 # or example.com/sshd:v1\n"), "docker.io/slipwaybuild")
	want := "# syntax=slipwaybuild/slipway:1.2.3\n# of slipwaybuild/node_exporter:1.2.3\nimage: slipwaybuild/sshd:v1-20261123 # or example.com/sshd:v1\n"
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
}
