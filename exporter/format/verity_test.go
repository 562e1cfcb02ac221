package format

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/gpt"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

// TestVerity checks a disk with dm-verity: veritysetup verifies its partitions with
// the root hash on the command line of its unified kernel image, and finds a
// changed byte. The IDs of the partitions are the root hash.
func TestVerity(t *testing.T) {
	need.Program(t, "veritysetup", "cryptsetup-bin")
	need.Program(t, "fsck.erofs", "erofs-utils")
	for architecture, types := range map[string][3]gpt.GUID{
		"amd64": {gpt.TypeESP, gpt.MustParse("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"), gpt.MustParse("2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5")},
		"arm64": {gpt.TypeESP, gpt.MustParse("B921B045-1DF0-41C3-AF44-4C6F280D3FAE"), gpt.MustParse("DF3300CE-D69F-4C92-978C-9BFB0F38D820")},
	} {
		for name, size := range map[string]int64{"smallest": 0, "1G": 1 << 30} {
			t.Run(architecture+" "+name, func(t *testing.T) {
				f, _ := Lookup("raw-verity")
				in := inputOf(t, f)
				in.Architecture, in.Size, in.Cmdline = architecture, size, "quiet -- x"
				files, err := Write(f.Name, in, t.TempDir(), func(w string) { t.Error(w) })
				if err != nil {
					t.Fatal(err)
				}
				checkVerity(t, files[0], architecture, types, size)
			})
		}
	}
}

func checkVerity(t *testing.T, name, architecture string, types [3]gpt.GUID, size int64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || size > 0 && info.Size() != size {
		t.Errorf("%v, %v, want %d bytes", info.Size(), err, size)
	}
	table, err := gpt.Read(f)
	if err != nil || len(table.Partitions) != len(types) {
		t.Fatalf("%+v, %v", table, err)
	}
	dir := t.TempDir()
	var parts [3]*io.SectionReader
	var copies [3]string
	for i, p := range table.Partitions {
		if p.Type != types[i] || p.First%2048 != 0 {
			t.Errorf("partition %+v, want type %s", p, types[i])
		}
		parts[i] = io.NewSectionReader(f, int64(p.First)*gpt.SectorSize, int64(p.Last-p.First+1)*gpt.SectorSize)
		content, err := io.ReadAll(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		copies[i] = filepath.Join(dir, p.Name)
		if err := os.WriteFile(copies[i], content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	esp, err := fat.Open(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	content, err := esp.Content(disk.LoaderPath(architecture))
	if err != nil {
		t.Fatal(err)
	}
	program, err := uki.Read(content, content.Size())
	if err != nil {
		t.Fatal(err)
	}
	section, _ := program.Section(".cmdline")
	cmdline, err := io.ReadAll(section.Reader())
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(cmdline), " ")
	hash := strings.TrimPrefix(first, "roothash=")
	if rest != "quiet -- x" || len(hash) != 64 {
		t.Fatalf("command line %q", cmdline)
	}
	ids := table.Partitions[1].ID.String() + table.Partitions[2].ID.String()
	if got := strings.ToLower(strings.ReplaceAll(ids, "-", "")); got != hash {
		t.Errorf("the IDs of the partitions are %s, want the root hash %s", got, hash)
	}
	run(t, "fsck.erofs", copies[1])
	run(t, "veritysetup", "verify", copies[1], copies[2], hash)
	root, err := os.OpenFile(copies[1], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := root.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("veritysetup", "verify", copies[1], copies[2], hash).CombinedOutput(); err == nil {
		t.Errorf("veritysetup accepts a changed byte: %s", out)
	}
}

func TestVerityErrors(t *testing.T) {
	f, _ := Lookup("raw-verity")
	for name, test := range map[string]struct {
		change func(*Input)
		want   string
	}{
		"root":      {func(in *Input) { in.Cmdline = "root=/dev/vda" }, "kernel command line: root= has no effect, because the build sets roothash=: remove it"},
		"root hash": {func(in *Input) { in.Cmdline = "roothash=0" }, "kernel command line: roothash= has no effect"},
		"long":      {func(in *Input) { in.Cmdline = strings.Repeat("x", 2000) }, "27 bytes too long"},
		"small":     {func(in *Input) { in.Size = 34 << 20 }, "SIZE 34M is too small by 34M: kernel, initrd, root file system and hash tree need 68M"},
		"no init":   {func(in *Input) { in.Segments = in.Segments[:1] }, "a root that dm-verity verifies needs an init that sets it up: there is no /sbin/init: add an init image"},
	} {
		in := inputOf(t, f)
		test.change(&in)
		if _, err := Write(f.Name, in, t.TempDir(), nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}
