package sbom

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzScan scans images with arbitrary databases and programs. Every package
// that it finds has a URL of its type.
func FuzzScan(f *testing.F) {
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(debian, status, apk, program[:4096])
	f.Add("ID=", "Package:\n\n", "P:x", []byte("\xff Go buildinf:\x08\x02"))
	f.Fuzz(func(t *testing.T, release, dpkg, installed string, program []byte) {
		dir := image(t, map[string]string{"etc/os-release": release, "var/lib/dpkg/status": dpkg, "lib/apk/db/installed": installed})
		if err := os.WriteFile(filepath.Join(dir, "program"), program, 0o755); err != nil {
			t.Fatal(err)
		}
		packages, err := Scan(dir)
		if err != nil {
			return
		}
		for _, p := range packages {
			if !strings.HasPrefix(p.URL, "pkg:") {
				t.Errorf("package %+v", p)
			}
		}
	})
}
