package httpboot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/segment"
)

const cmdline = `console=ttyS0 a="b c"`

// folder has a machine in several formats, and files that must not be served.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	boot := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		if err := os.WriteFile(name, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return name
	}
	spec, err := json.Marshal([]map[string]any{{"path": "init", "type": "file", "mode": 0o755, "contents": []byte("#!/bin/init")}})
	if err != nil {
		t.Fatal(err)
	}
	in := format.Input{
		Name: "m", Kernel: write(filepath.Join(boot, "kernel"), disktest.Kernel("6.12.1-test")), Cmdline: cmdline, Architecture: "amd64",
		Loaders: disktest.Loaders(t), Time: time.Unix(exporter.Epoch, 0), Compression: segment.Compression{Algorithm: "zstd", Level: 3},
	}
	files, err := segment.PackEntries(spec, segment.CPIO, "zstd")
	if err != nil {
		t.Fatal(err)
	}
	packed := t.TempDir()
	for name, content := range files {
		write(filepath.Join(packed, name), content)
	}
	in.Segments = []segment.Dir{{Path: packed}}
	for _, file := range []struct{ name, format string }{
		{"k", "kernel+initrd"}, {"k", "iso"}, {"m", "raw"}, {"m", "raw-efi"}, {"m", "qcow2"}, {"m", "uki"}, {"m", "iso"},
	} {
		in.Name = file.name
		if _, err := format.Write(file.format, in, dir, func(string) {}); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, ".secret.raw"), nil)
	write(filepath.Join(dir, "a b.raw"), nil)
	write(filepath.Join(dir, "notes.txt"), []byte("secret"))
	for _, name := range []string{"squashed-kernel", "squashed-squashfs.img"} {
		write(filepath.Join(dir, name), nil)
	}
	outside := write(filepath.Join(boot, "outside.raw"), []byte("secret"))
	if err := os.Symlink(outside, filepath.Join(dir, "link.raw")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.raw"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve serves a folder. It returns a function that sends a request, and the
// log.
func serve(t *testing.T, dir string) (get func(path string, header ...string) (*http.Response, []byte), out *bytes.Buffer) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	out = new(bytes.Buffer)
	h := &Handler{Machines: func() ([]Machine, error) { return Folder(root) }, Log: log.New(out, "", 0)}
	return func(path string, header ...string) (*http.Response, []byte) {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result(), w.Body.Bytes()
	}, out
}

func TestFolder(t *testing.T) {
	dir := folder(t)
	get, _ := serve(t, dir)
	_, index := get("/")
	var names []string
	for line := range strings.Lines(string(index)) {
		if !strings.HasPrefix(line, " ") {
			names = append(names, strings.TrimSpace(line))
		}
	}
	if want := []string{"k", "k.iso", "m-efi.img", "m.efi", "m.iso", "m.qcow2", "m.raw"}; !slices.Equal(names, want) {
		t.Fatalf("the machines are %q, want %q", names, want)
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for path, contentType := range map[string]string{"m.efi": typeProgram, "m.iso": typeISO, "m.raw": typeDisk, "m-efi.img": typeDisk} {
		answer, body := get("/" + path)
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != contentType || !bytes.Equal(body, read(path)) {
			t.Errorf("%s: %d, %q, %d bytes", path, answer.StatusCode, answer.Header.Get("Content-Type"), len(body))
		}
	}
	if answer, body := get("/m.qcow2.img"); answer.Header.Get("Content-Type") != typeDisk || !bytes.Equal(body, read("m.raw")) {
		t.Errorf("the disk in m.qcow2 is not m.raw: %d bytes", len(body))
	}
	trim := func(b []byte) []byte { return bytes.TrimRight(b, "\x00") } // padding
	for _, name := range names {
		if _, kernel := get("/" + name + "/kernel"); !bytes.Equal(trim(kernel), trim(read("k-kernel"))) {
			t.Errorf("%s has a kernel of %d bytes", name, len(kernel))
		}
		if _, initrd := get("/" + name + "/initrd.img"); !bytes.Equal(trim(initrd), trim(read("k-initrd.img"))) {
			t.Errorf("%s has an initramfs of %d bytes", name, len(initrd))
		}
		want := fmt.Sprintf("#!ipxe\nkernel %[1]s/kernel initrd=initrd.img %s\ninitrd --name initrd.img %[1]s/initrd.img\nboot\n", name, cmdline)
		if name == "k.iso" || name == "m.iso" || name == "m.raw" || name == "m.qcow2" {
			continue // GRUB's quotes
		}
		if _, script := get("/" + name + ".ipxe"); string(script) != want {
			t.Errorf("%s: script %s, want %s", name, script, want)
		}
	}
	if _, script := get("/boot.ipxe"); strings.Count(string(script), "\nitem ") != len(names) {
		t.Errorf("menu: %s", script)
	}
}

func TestRanges(t *testing.T) {
	dir := folder(t)
	get, _ := serve(t, dir)
	_, all := get("/m.raw")
	answer, body := get("/m.raw", "Range", "bytes=440-1535")
	if answer.StatusCode != http.StatusPartialContent || !bytes.Equal(body, all[440:1536]) || answer.Header.Get("Content-Range") != fmt.Sprintf("bytes 440-1535/%d", len(all)) {
		t.Errorf("%d, %q, %d bytes", answer.StatusCode, answer.Header.Get("Content-Range"), len(body))
	}
	if answer, _ := get("/m.raw", "Range", "bytes=99999999999-"); answer.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("a range after the end: %d", answer.StatusCode)
	}
}

// TestOthers checks that nothing else is served, and that the log has one clean
// line for each request.
func TestOthers(t *testing.T) {
	get, out := serve(t, folder(t))
	paths := []string{
		"", "/x", "/.secret.raw", "/a b.raw", "/notes.txt", "/link.raw", "/pipe.raw", "/../outside.raw", "//m.raw", "/m.raw/", "/m.raw/../m.raw",
		"/m.raw/cmdline", "/squashed.ipxe", "/squashed-squashfs.img", "/k-kernel", "/m.qcow2", "/\x1b[2J\n200", strings.Repeat("/a", 5000),
	}
	for _, path := range paths {
		if answer, body := get(path); answer.StatusCode != http.StatusNotFound || string(body) != "not found\n" {
			t.Errorf("%q: %d, %q", path, answer.StatusCode, body)
		}
	}
	if lines := strings.Count(out.String(), "\n"); lines != len(paths) || strings.Contains(out.String(), "\x1b") || out.Len() > 400*len(paths) {
		t.Errorf("the log has %d lines, want %d: %q", lines, len(paths), out)
	}
}

func TestMethods(t *testing.T) {
	h := &Handler{Machines: func() ([]Machine, error) { return nil, nil }, Log: log.New(io.Discard, "", 0)}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", w.Code)
	}
}

// TestBroken checks that an image that cannot be read does not stop the others.
func TestBroken(t *testing.T) {
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "broken.efi"), []byte("MZ"), 0o644); err != nil {
		t.Fatal(err)
	}
	get, _ := serve(t, dir)
	if answer, body := get("/broken.efi.ipxe"); answer.StatusCode != http.StatusInternalServerError || strings.Contains(string(body), dir) {
		t.Errorf("%d: %s", answer.StatusCode, body)
	}
	if answer, _ := get("/m.efi"); answer.StatusCode != http.StatusOK {
		t.Errorf("m.efi: %d", answer.StatusCode)
	}
}

func TestScript(t *testing.T) {
	m := Machine{Name: "m"}
	for _, bad := range []string{"a=${x}", "a && b", "a || b", `a="b  c"`, "a\nsanboot"} {
		if script, err := m.script(bad); err == nil {
			t.Errorf("%q: %s", bad, script)
		}
	}
	if got, err := m.script("a  b"); err != nil || !strings.Contains(got, "initrd=initrd.img a b\n") {
		t.Errorf("%s, %v", got, err)
	}
	if got := menu([]Machine{m}); got != "#!ipxe\nchain m.ipxe\n" {
		t.Error(got)
	}
}
