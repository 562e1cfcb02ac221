package test

import (
	"bufio"
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/slipway-build/slipway/exporter/efivars"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/httpboot"
	"github.com/slipway-build/slipway/internal/testutil/artifacttest"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/selfsigned"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/publisher/artifact"
)

// TestHTTPBoot boots a machine without a disk, from the server of slipway serve:
// a UKI and an ISO in a folder by UEFI HTTP boot, and kernel and initramfs of a
// disk in a registry by iPXE. With TLS, the firmware trusts the server's
// certificate.
func TestHTTPBoot(t *testing.T) {
	stack.Require(t)
	if !*bootAll {
		return // internal/httpboot tests the server
	}
	need.File(t, "/usr/lib/ipxe/qemu/pxe-virtio.rom", "ipxe-qemu")
	dir := machineYAML(t, formatMachine("console=ttyS0 panic=-1"))
	args := append([]string{"-f", "machine.yml", "--platform=linux/amd64", "--target=raw,uki,iso", "-o", "out", "."}, formatImages(t)["amd64"]...)
	if _, stderr, err := stack.Buildx(dir, args...); err != nil {
		t.Fatalf("build: %v\n%s", err, stderr)
	}
	root, err := os.OpenRoot(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fromRegistry := inRegistry(t, filepath.Join(dir, "out", "machine.raw"))
	var requests bytes.Buffer // complete when the server is closed
	server := httptest.NewUnstartedServer(nil)
	server.Config = httpboot.NewServer(&httpboot.Handler{
		Machines: func() ([]httpboot.Machine, error) {
			machines, err := httpboot.Folder(root)
			return append(machines, fromRegistry), err
		},
		Log: log.New(&requests, "", 0),
	})
	server.Start()
	for _, path := range []string{"registry.raw.ipxe", "machine.efi", "machine.iso"} {
		t.Run(path, func(t *testing.T) { bootOverHTTP(t, server.URL+"/"+path) })
	}
	t.Run("TLS", func(t *testing.T) {
		keys := t.TempDir()
		certificate, key := selfsigned.PEM(t)
		block, _ := pem.Decode(certificate)
		parsed, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		write(t, keys, map[string]string{
			"cert": string(certificate), "key": string(key),
			"trusted": string(efivars.SignatureLists(efivars.Global, parsed)), // OVMF reads it from QEMU
		})
		url := startServe(t, dir, "--tls-cert="+filepath.Join(keys, "cert"), "--tls-key="+filepath.Join(keys, "key"), "out")
		bootOverHTTP(t, url+"machine.efi", "-fw_cfg", "name=etc/edk2/https/cacerts,file="+filepath.Join(keys, "trusted"))
	})
	server.Close()
	for _, want := range []string{`"/registry.raw.ipxe" 200`, `"/registry.raw/kernel" 200`, `"/registry.raw/initrd.img" 200`, `"/machine.efi" 200`, `"/machine.iso" 200`} {
		if !strings.Contains(requests.String(), want) {
			t.Errorf("no request %s in\n%s", want, requests.String())
		}
	}
}

// bootOverHTTP boots the machine at a URL of 127.0.0.1 on a computer with an empty
// disk, and returns its report. iPXE boots a script, and OVMF everything else. The
// arguments are for QEMU.
func bootOverHTTP(t *testing.T, url string, arguments ...string) formatReport {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	url = strings.Replace(url, "127.0.0.1", "10.0.2.2", 1)
	// The interface of vm.Config never boots.
	netdev, rom := "user,id=boot", ",romfile="
	config := vm.Config{Data: []vm.Drive{{File: empty}}, NoNetwork: true, Memory: 1024, LogDir: stack.Artifacts(t)}
	if strings.HasSuffix(url, ".ipxe") {
		netdev, rom = netdev+",bootfile="+url, ""
	} else {
		config.Firmware, config.Variables = vm.UEFI, filepath.Join(t.TempDir(), "variables")
		bootNext(t, config, url)
	}
	config.Arguments = append(arguments, "-netdev", netdev, "-device", "virtio-net-pci,netdev=boot,bootindex=0"+rom)
	return reportOf(t, runToEnd(t, config))
}

// startServe runs slipway serve in a folder until the test ends, and returns its
// URL.
func startServe(t *testing.T, dir string, args ...string) string {
	t.Helper()
	program, err := command()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, append([]string{"serve", "--listen=127.0.0.1:0"}, args...)...)
	cmd.Dir = dir
	var log bytes.Buffer
	cmd.Stderr = &log
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		t.Logf("slipway serve:\n%s", log.String())
	})
	url, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("slipway serve prints no URL: %v", err)
	}
	return strings.TrimSpace(url)
}

// inRegistry pushes a disk, and returns the machine on it.
func inRegistry(t *testing.T, file string) httpboot.Machine {
	t.Helper()
	pushed := artifacttest.Push(t, "oci://"+stack.Registry+"/test/httpboot:v1", "raw", map[string]string{"amd64": file})
	a, err := artifact.Open(t.Context(), pushed, artifact.Choice{})
	if err != nil {
		t.Fatal(err)
	}
	m, err := httpboot.File("registry.raw", func() (sparse.Content, io.Closer, error) {
		return sparse.FromReader(a, a.Size), io.NopCloser(nil), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bootNext creates a file of UEFI variables that let OVMF boot a URL once. See
// UEFI 2.10, sections 3.1.3, 3.3 and 10.3.4.23, and MdeModulePkg/Include/Guid/
// VariableFormat.h of EDK II.
func bootNext(t *testing.T, config vm.Config, url string) {
	t.Helper()
	data, err := os.ReadFile("/usr/share/OVMF/OVMF_VARS_4M.fd")
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	const storeHeader, variableHeader = 28, 60
	store := int(le.Uint16(data[48:])) // after the header of the firmware volume
	at := store + storeHeader
	for le.Uint16(data[at:]) == 0x55aa {
		at += variableHeader + int(le.Uint32(data[at+36:])+le.Uint32(data[at+40:]))
		at = (at + 3) &^ 3
	}
	encode := func(text string) []byte {
		var b []byte
		for _, c := range append(utf16.Encode([]rune(text)), 0) {
			b = le.AppendUint16(b, c)
		}
		return b
	}
	global := []byte("\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c")
	write := func(name string, value []byte) {
		h := make([]byte, variableHeader)
		le.PutUint16(h, 0x55aa)
		h[2] = 0x3f            // valid
		le.PutUint32(h[4:], 7) // non-volatile, for boot services and at run time
		encoded := encode(name)
		le.PutUint32(h[36:], uint32(len(encoded)))
		le.PutUint32(h[40:], uint32(len(value)))
		copy(h[44:], global)
		at += copy(data[at:], append(append(h, encoded...), value...))
		at = (at + 3) &^ 3
	}
	path := append([]byte{3, 24}, le.AppendUint16(nil, uint16(4+len(url)))...)
	path = append(append(path, url...), 0x7f, 0xff, 4, 0)
	option := le.AppendUint32(nil, 1) // active
	option = le.AppendUint16(option, uint16(len(path)))
	write("Boot0042", append(append(option, encode("HTTP")...), path...))
	write("BootNext", le.AppendUint16(nil, 0x42))
	if err := os.WriteFile(config.Variables, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
