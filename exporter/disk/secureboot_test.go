package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/exporter/segment"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/bootkeys"
	"github.com/slipway-build/slipway/internal/testutil/need"
)

var bootSigned = flag.Bool("boot", false, "boot signed disks, and those that Secure Boot must refuse")

const secureCode = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"

// An authority is a signer with the variables of firmware that trusts its key only.
type authority struct {
	signer  *uki.Signer
	vars    []byte
	trusted []efivars.Variable
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	need.File(t, secureCode, "ovmf")
	keys, err := bootkeys.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	signer, err := uki.NewSigner(keys.DB.Certificate, keys.DB.Private)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := os.ReadFile(ovmfVars)
	if err != nil {
		t.Fatal(err)
	}
	vars, err := efivars.AddToStore(empty, append(keys.Variables(), efivars.SecureBootEnable())...)
	if err != nil {
		t.Fatal(err)
	}
	return authority{signer, vars, keys.Variables()}
}

// boot boots a disk until it reports, or the firmware refuses to start it.
func (a authority) boot(t *testing.T, raw string, args ...string) (r report, refused bool) {
	t.Helper()
	vars := filepath.Join(t.TempDir(), "vars.fd")
	if err := os.WriteFile(vars, a.vars, 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute) // under TCG, beside other tests
	defer cancel()
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", append([]string{
		"-machine", "q35,smm=on,graphics=off", "-accel", "tcg", "-m", "768", "-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-nic", "none",
		"-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1",
		"-drive", "if=pflash,format=raw,readonly=on,file=" + secureCode, "-drive", "if=pflash,format=raw,file=" + vars,
		"-drive", "if=none,id=d,format=raw,snapshot=on,file=" + raw, "-device", "nvme,drive=d,serial=1,bootindex=0",
	}, args...)...)
	start := time.Now()
	var console bytes.Buffer
	watch := writerFunc(func(p []byte) (int, error) {
		console.Write(p)
		if regexp.MustCompile(`Access Denied|Security Violation`).Match(console.Bytes()) {
			refused = true
			cancel()
		}
		return len(p), nil
	})
	cmd.Stdout, cmd.Stderr = watch, watch
	err := cmd.Run()
	t.Logf("%.1f s", time.Since(start).Seconds())
	if refused {
		return r, true
	}
	line := regexp.MustCompile(`(?m)^REPORT (.*?)\r?$`).FindSubmatch(console.Bytes())
	if err != nil || line == nil {
		t.Fatalf("no report: %v; console:\n%s", err, console.Bytes())
	}
	if err := json.Unmarshal(line[1], &r); err != nil {
		t.Fatalf("%v in %s", err, line[1])
	}
	return r, false
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// smallInitrd returns an initramfs with testdata/init only.
func smallInitrd(t *testing.T, dir string) []sparse.Content {
	t.Helper()
	root := filepath.Join(dir, "root")
	for _, name := range []string{"proc", "dev", "sys"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(buildInit(t, dir), filepath.Join(root, "init")); err != nil {
		t.Fatal(err)
	}
	packer := segment.Packer{Out: filepath.Join(dir, "segment"), Archive: segment.CPIO, Compression: segment.Compression{Algorithm: "none"}}
	if err := os.Mkdir(packer.Out, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := packer.Pack(segment.Rootfs{Dir: root}, "", segment.RulesInit); err != nil {
		t.Fatal(err)
	}
	parts, err := segment.Initrd("", []segment.Dir{segment.ParseDir(packer.Out)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var images []sparse.Content
	for _, p := range parts {
		images = append(images, imageOf(t, p.File).Pad(segment.PartAlignment))
	}
	return images
}

// newSigned lays out a disk with a command line.
func newSigned(t *testing.T, boot BootMethod, initrd []sparse.Content, cmdline string, l Loaders, signer *uki.Signer) string {
	t.Helper()
	d, err := New(boot, Contents{Kernel: imageOf(t, testKernel), Initrd: initrd, Cmdline: cmdline, Signer: signer}, l, 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.raw")
	writeRaw(t, d, file)
	return file
}

// Firmware that trusts one key boots the disks that it signed. It refuses a disk
// without signature, with the signature of another key, and with a change to the
// loader, the command line, the kernel or the initramfs.
func TestSecureBoot(t *testing.T) {
	if !*bootSigned {
		t.Skip("boots virtual machines")
	}
	needBoot(t)
	trusted, other := newAuthority(t), newAuthority(t)
	dir := t.TempDir()
	initrd, l := smallInitrd(t, dir), realLoaders(t, dir)
	const cmdline = "console=ttyS0 quiet panic=-1 lockdown=integrity"

	for _, boot := range []BootMethod{UKI, Hybrid} {
		t.Run("signed for "+string(boot), func(t *testing.T) {
			r, refused := trusted.boot(t, newSigned(t, boot, initrd, cmdline, l, trusted.signer))
			if refused || r.Error != "" || !r.SecureBoot {
				t.Errorf("refused: %t, error %q, Secure Boot: %t", refused, r.Error, r.SecureBoot)
			}
			if r.Cmdline != cmdline+"\n" || !strings.Contains(r.Lockdown, "[integrity]") {
				t.Errorf("command line %q, lockdown %q", r.Cmdline, r.Lockdown)
			}
		})
	}
	raw := newSigned(t, UKI, initrd, cmdline, l, trusted.signer)
	data, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"unsigned":            newSigned(t, UKI, initrd, cmdline, l, nil),
		"unsigned hybrid":     newSigned(t, Hybrid, initrd, cmdline, l, nil),
		"signed by other key": newSigned(t, UKI, initrd, cmdline, l, other.signer),
		"other loader":        tampered(t, data, "systemd-stub"),
		"other command line":  tampered(t, data, "panic=-1"),
		"other kernel":        tampered(t, data, "HdrS"),
		"other initramfs":     tampered(t, data, "TRAILER!!!"),
	} {
		t.Run(name, func(t *testing.T) {
			if _, refused := trusted.boot(t, file); !refused {
				t.Error("it boots")
			}
		})
	}
}

// tampered writes a disk with another byte in the last text of this kind.
func tampered(t *testing.T, disk []byte, text string) string {
	t.Helper()
	at := bytes.LastIndex(disk, []byte(text))
	if at < 0 {
		t.Fatalf("the disk does not contain %q", text)
	}
	changed := bytes.Clone(disk)
	changed[at+len(text)-1]++
	file := filepath.Join(t.TempDir(), "tampered.raw")
	if err := os.WriteFile(file, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// startTPM starts a TPM and returns QEMU's arguments for it.
func startTPM(t *testing.T) []string {
	t.Helper()
	need.Program(t, "swtpm", "swtpm")
	dir, err := os.MkdirTemp("", "tpm") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	cmd := exec.CommandContext(t.Context(), "swtpm", "socket", "--tpm2", "--terminate", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("swtpm does not listen")
		}
	}
	return []string{"-chardev", "socket,id=tpm,path=" + socket, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"}
}

// Predict returns the PCRs that package measure, which imports this package,
// predicts for a disk, as testdata/init reports them.
var Predict func(disk string, trusted []efivars.Variable) (map[string]string, error)

// The TPM of a machine has the registers that package measure predicts.
func TestMeasured(t *testing.T) {
	if !*bootSigned {
		t.Skip("boots virtual machines")
	}
	needBoot(t)
	signed := newAuthority(t)
	vars, err := os.ReadFile(ovmfVars)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := authority{vars: vars}
	dir := t.TempDir()
	initrd, l := smallInitrd(t, dir), realLoaders(t, dir)
	for _, cmdline := range []string{"console=ttyS0 quiet panic=-1", `console=ttyS0 panic=-1 quiet foo="a b" ünï -- x`} {
		for name, machine := range map[string]struct {
			authority
			boot BootMethod
		}{"signed": {signed, UKI}, "unsigned": {unsigned, UKI}, "systemd-boot": {unsigned, UEFI}} {
			t.Run(name, func(t *testing.T) {
				file := newSigned(t, machine.boot, initrd, cmdline, l, machine.signer)
				want, err := Predict(file, machine.trusted)
				if err != nil {
					t.Fatal(err)
				}
				r, _ := machine.authority.boot(t, file, startTPM(t)...)
				for pcr, value := range want {
					if r.PCRs[pcr] != value {
						t.Errorf("%s is %s, want %s", pcr, r.PCRs[pcr], value)
					}
				}
				if len(want) != 10 || r.SecureBoot != (machine.trusted != nil) {
					t.Errorf("%d registers, Secure Boot: %t", len(want), r.SecureBoot)
				}
			})
		}
	}
}
