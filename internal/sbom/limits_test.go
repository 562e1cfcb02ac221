package sbom

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHostileImage scans images whose files are made to exhaust memory or to
// block the scanner.
func TestHostileImage(t *testing.T) {
	long := strings.Repeat("x", maxLine+1)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // in the error
	}{
		{"large os-release", map[string]string{"etc/os-release": strings.Repeat("A=b\n", maxRelease/4+1)}, "read /etc/os-release: more than 65536 bytes"},
		{"long line", map[string]string{"var/lib/dpkg/status": "Package: " + long}, "read /var/lib/dpkg/status: "},
		{"invalid line", map[string]string{"lib/apk/db/installed": "\x1b[31mred"}, `invalid line "\x1b[31mred"`},
		{"many packages", map[string]string{"lib/apk/db/installed": strings.Repeat("P:a\n\n", maxPackages+1)}, "more than 200000 packages"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Scan(image(t, c.files)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestLargeDatabase scans a sparse database, whose layer is small.
func TestLargeDatabase(t *testing.T) {
	dir := image(t, map[string]string{"lib/apk/db/installed": "P:a\n\n"})
	f, err := os.OpenFile(filepath.Join(dir, "lib/apk/db/installed"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	line := []byte(strings.Repeat("F:"+strings.Repeat("d", 1021)+"\n", 1024))
	for range maxDatabase/len(line) + 1 {
		if _, err := f.Write(line); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Scan(dir); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than %d bytes", maxDatabase)) {
		t.Errorf("error %v", err)
	}
}

// TestSpecialDatabase scans an image with FIFOs, which block the program that
// opens them.
func TestSpecialDatabase(t *testing.T) {
	for _, name := range []string{"etc/os-release", "var/lib/dpkg/status", "lib/apk/db/installed"} {
		dir := image(t, map[string]string{name + ".dir/file": ""})
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o644); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := Scan(dir)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "/"+name+" is not a regular file") {
				t.Errorf("%s: error %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the scanner waits for a writer", name)
		}
	}
}

func TestLimitedReaderAt(t *testing.T) {
	r := &limitedReaderAt{strings.NewReader("123456789"), 8}
	if _, err := r.ReadAt(make([]byte, 8), 0); err != nil {
		t.Errorf("the first 8 bytes: %v", err)
	}
	if _, err := r.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("read more than the limit")
	}
}
