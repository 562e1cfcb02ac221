package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/image"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// TestTrust builds the machine of examples/aws.yml signed, with a root that
// dm-verity verifies, and publishes it with a TPM and keys, with one command each. It
// boots the published bytes with firmware that trusts these keys only, and compares
// the registers of the TPM with those that the build predicted. Then it changes one
// byte of each part of the disk, which must not boot.
func TestTrust(t *testing.T) {
	if !*bootAll {
		t.Skip("boots machines: run make test-boot")
	}
	stack.Require(t)
	keys := filepath.Join(t.TempDir(), "keys")
	mustSlipway(t, 0, "keys", "new", keys)
	uefiData := filepath.Join(keys, "uefi-data")
	build := func() (file, pcrs string) {
		out := t.TempDir()
		mustSlipway(t, 0, "build", "--progress=plain", "--format=raw-verity", "--uefi-data="+uefiData,
			"--secure-boot-key="+filepath.Join(keys, "db.key"), "--secure-boot-cert="+filepath.Join(keys, "db.crt"), "-o", out, "examples/aws.yml")
		return filepath.Join(out, "aws-verity.img"), filepath.Join(out, "aws.pcrs.json")
	}
	file, pcrs := build()
	again, _ := build()
	if digestOf(t, file) != digestOf(t, again) {
		t.Error("two builds with one key differ")
	}
	data, err := os.ReadFile(pcrs)
	if err != nil {
		t.Fatal(err)
	}
	var predicted measure.Measurements
	if err := json.Unmarshal(data, &predicted); err != nil || !predicted.SecureBoot {
		t.Fatalf("predicted %s, %v", data, err)
	}

	secret := func(id, file string) string { return "--secret=id=" + id + ",src=" + filepath.Join(keys, file) }
	answer, stderr, err := stack.Buildx("..", "-f", "examples/aws.yml", "--platform=linux/amd64", "--target=raw-verity", "--call=machine.measurements,format=json",
		"--build-arg=SIGN=true", secret("slipway.key", "db.key"), secret("slipway.crt", "db.crt"), secret("slipway.uefi-data", "uefi-data"), ".")
	var called measure.Measurements
	if err != nil || json.Unmarshal([]byte(answer), &called) != nil || !reflect.DeepEqual(called, predicted) {
		t.Errorf("--call=machine.measurements: %v\n%s%s\nwant %s", err, answer, stderr, data)
	}

	a := newAccount(t)
	published := a.publish(t, file, "--name=trust", "--uefi-data="+uefiData)
	verify := exec.Command(a.program, "aws", "verify", published.Image, "--uefi-data="+uefiData, file)
	verify.Env = append(append(os.Environ(), a.Env()...), "XDG_STATE_HOME="+a.dir)
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("slipway-publish aws verify: %v\n%s", err, out)
	}
	m := trustMachine{disk: a.save(t, published), keys: keys}
	if stdout, _ := mustSlipway(t, 0, "inspect", "--keys="+keys, m.disk); !strings.Contains(stdout, "root file system and hash tree match") ||
		!strings.Contains(stdout, "SHA-256 WITH SECURE BOOT ON") || !strings.Contains(stdout, predicted.PCRs["sha256"]["7"]) {
		t.Errorf("slipway inspect:\n%s", stdout)
	}
	t.Run("measured", func(t *testing.T) { m.compare(t, &predicted) })
	t.Run("tampered", func(t *testing.T) { m.tamper(t) })
}

// A trustMachine is a disk with the keys of the firmware that boots it.
type trustMachine struct{ disk, keys string }

func (m trustMachine) start(t *testing.T, config vm.Config) *vm.Machine {
	t.Helper()
	config.Firmware, config.Keys, config.Variables = vm.OwnKeys, m.keys, filepath.Join(t.TempDir(), "variables.fd")
	config.Disk, config.LogDir = m.disk, stack.Artifacts(t)
	machine, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(machine.Kill)
	return machine
}

// compare logs in to the machine and compares the registers of its TPM with the
// predicted ones.
func (m trustMachine) compare(t *testing.T, predicted *measure.Measurements) {
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	machine := m.start(t, vm.Config{TPM: filepath.Join(t.TempDir(), "tpm"), Metadata: &cloud.Instance{ID: "i-0123456789abcdef0", PublicKeys: []string{key.Public}}})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	login, err := machine.WaitSSH(ctx, key)
	if err != nil {
		t.Fatalf("%v\n%s", err, machine.ConsoleTail(40))
	}
	t.Logf("ssh after %.1f s", login.Seconds())
	g := &guest{machine, key}
	for bank, values := range predicted.PCRs {
		for pcr, want := range values {
			if got := strings.ToLower(g.output(t, fmt.Sprintf("cat /sys/class/tpm/tpm0/pcr-%s/%s", bank, pcr))); got != want {
				t.Errorf("PCR %s of bank %s is %s, predicted %s", pcr, bank, got, want)
			}
		}
	}
	if len(predicted.PCRs) != 2 || len(predicted.PCRs["sha384"]) != len(measure.PCRs) {
		t.Errorf("predicted %+v", predicted.PCRs)
	}
	if mounts := g.output(t, "cat /proc/1/mounts"); !strings.HasPrefix(mounts, "/dev/dm-0 / erofs ro,") {
		t.Errorf("mounts of the machine:\n%s", mounts)
	}
}

// refused is what firmware prints about a program that it does not start.
const refused = `Access Denied|Security Violation`

// tamper boots the machine with another byte in each part of its disk.
func (m trustMachine) tamper(t *testing.T) {
	for what, test := range map[string]struct {
		section string // of the unified kernel image, or "" for the root
		want    string
	}{
		"loader":       {".text", refused},
		"command line": {".cmdline", refused},
		"kernel":       {".linux", refused},
		"initramfs":    {".initrd", refused},
		"root":         {"", "dm-verity device corrupted"},
	} {
		t.Run(what, func(t *testing.T) {
			f, err := os.OpenFile(m.disk, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			flip := func() { m.flip(t, f, test.section) }
			flip()
			defer flip()
			machine := m.start(t, vm.Config{NoNetwork: true})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			if _, err := machine.WaitConsole(ctx, regexp.MustCompile(test.want)); err != nil {
				t.Errorf("%v\n%s", err, machine.ConsoleTail(40))
			}
			if console := machine.ConsoleTail(1000); strings.Contains(console, "Linux version") != (test.section == "") || strings.Contains(console, "slipway init") {
				t.Errorf("it boots:\n%s", console)
			}
		})
	}
}

// flip changes a bit in the middle of a section of the unified kernel image, or in
// the superblock of the root file system.
func (m trustMachine) flip(t *testing.T, f *os.File, section string) {
	t.Helper()
	i, err := image.Open(m.disk)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	change := func(volume io.ReaderAt, write func([]byte, int64) error, at int64) {
		b := make([]byte, 1)
		if _, err := volume.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 1
		if err := write(b, at); err != nil {
			t.Fatal(err)
		}
	}
	if section == "" {
		change(f, func(b []byte, at int64) error { _, err := f.WriteAt(b, at); return err }, i.Partitions[1].Start+1024)
		return
	}
	esp, err := fat.Open(io.NewSectionReader(f, i.Partitions[0].Start, i.Partitions[0].Size))
	if err != nil {
		t.Fatal(err)
	}
	path := disk.LoaderPath("amd64")
	content, err := esp.Content(path)
	if err != nil {
		t.Fatal(err)
	}
	program, err := uki.Read(content, content.Size())
	if err != nil {
		t.Fatal(err)
	}
	part, ok := program.Section(section)
	if !ok {
		t.Fatalf("no section %s", section)
	}
	middle := part.Size / 2
	sample := make([]byte, min(64, part.Size-middle))
	if _, err := part.ReadAt(sample, middle); err != nil {
		t.Fatal(err)
	}
	whole, err := io.ReadAll(io.NewSectionReader(content, 0, content.Size()))
	if err != nil {
		t.Fatal(err)
	}
	at := int64(bytes.Index(whole, sample))
	if at < 0 {
		t.Fatalf("section %s is not in the program", section)
	}
	volume := io.NewOffsetWriter(f, i.Partitions[0].Start)
	change(content, func(b []byte, at int64) error { return esp.Overwrite(volume, path, b, at) }, at)
}
