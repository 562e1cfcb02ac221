package test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/slipway-build/slipway/examples"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/testutil/eifjudge"
	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/ntp"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
)

// exampleUses has a test for each example, which boots the machine and uses it
// for its purpose.
var exampleUses = map[string]func(*testing.T){
	"bastion":           useBastion,
	"batch":             useBatch,
	"docker-host":       useDockerHost,
	"docker-image":      useDockerImage,
	"enclave":           useEnclave,
	"enclave-parent":    useEnclaveParent,
	"enclave-secret":    useEnclaveSecret,
	"encrypted-disk":    useEncryptedDisk,
	"sealed-disk":       useSealedDisk,
	"k8s-node-skeleton": useKubernetesNode,
	"memory-limit":      useMemoryLimit,
	"metrics":           useMetrics,
	"qemu":              useQEMU,
	"static-address":    useStaticAddress,
	"user-data":         useUserData,
	"wireguard":         useWireGuard,
}

// usedElsewhere has the tests that use the other examples.
var usedElsewhere = map[string]string{
	"aws":       "TestAWS, TestRunTerminal",
	"installer": "TestInstaller",
	"minimal":   "TestConsole of test/guest",
	"web":       "TestRun, TestRunCommand",
}

// TestEveryExampleIsUsed checks that a test uses each example.
func TestEveryExampleIsUsed(t *testing.T) {
	all, err := examples.All()
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if _, ok := exampleUses[e.Name]; ok == (usedElsewhere[e.Name] != "") {
			t.Errorf("no test uses %s, or two do", e.Name)
		}
		if !strings.Contains(string(readme), "["+e.Name+".yml]("+e.Name+".yml)") {
			t.Errorf("examples/README.md does not list %s", e.Name)
		}
	}
	if want := len(exampleUses) + len(usedElsewhere); len(all) != want {
		t.Errorf("%d examples, and tests of %d", len(all), want)
	}
}

// TestExamples boots the examples and uses each for its purpose.
func TestExamples(t *testing.T) {
	if !*bootAll {
		t.Skip("boots a dozen machines: run make test-boot")
	}
	stack.Require(t)
	dockerHubImages(t)
	all, err := examples.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if use, ok := exampleUses[e.Name]; ok {
			t.Run(e.Name, func(t *testing.T) {
				home(t)
				use(t)
			})
		}
	}
}

var pushHTTPBin sync.Once

// dockerHubImages pushes the images of Docker Hub that the examples use to the
// registry, which is the builder's mirror of Docker Hub. They are for both
// platforms, like those that a lock of an example has.
func dockerHubImages(t *testing.T) {
	t.Helper()
	pushHTTPBin.Do(func() {
		stack.MustBuildx(t, "testdata/httpbin", "--platform", "linux/amd64,linux/arm64", "-o", "type=registry", "-t", stack.Registry+"/mccutchen/go-httpbin:v2.15.0", ".")
	})
}

// runExample runs an example in the background, as slipway run does, until it
// accepts ssh or meets the conditions of --wait. It stops at the end of the test.
func runExample(t *testing.T, name string, args ...string) {
	t.Helper()
	file := "examples/" + name + ".yml"
	if filepath.IsAbs(name) {
		file, name = name, strings.TrimSuffix(filepath.Base(name), ".yml")
	}
	t.Cleanup(func() {
		if t.Failed() {
			console, _, _ := slipway(t, "..", "logs", name)
			t.Logf("the console:\n%s", console)
		}
		slipway(t, "..", "stop", "--timeout=0", name)
	})
	mustSlipway(t, 0, slices.Concat([]string{"run", "--accel=tcg", "--progress=plain", "--detach", "--timeout=10m", file}, args)...)
}

// onExample runs a shell command by ssh and returns its output.
func onExample(t *testing.T, name, command string) string {
	t.Helper()
	stdout, _ := mustSlipway(t, 0, "ssh", "--timeout=10m", name, command)
	return stdout
}

// publishPort returns a free port of this host and the flag that publishes a
// port of the machine there.
func publishPort(t *testing.T, guest string) (port int, flag string) {
	t.Helper()
	port = freePort(t)
	return port, fmt.Sprintf("--publish=%d:%s", port, guest)
}

// await calls a function until it returns no error.
func await(t *testing.T, what string, f func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// fetch returns the body of a page.
func fetch(port int, path string) (string, error) {
	client := &http.Client{Timeout: 30 * time.Second}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return string(body), err
}

// serves waits until a page contains a text.
func serves(t *testing.T, port int, path, want string) {
	t.Helper()
	await(t, path, func() error {
		body, err := fetch(port, path)
		if err == nil && !strings.Contains(body, want) {
			err = fmt.Errorf("%q, want %q", body, want)
		}
		return err
	})
}

func tempFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The bastion passes connections to ssh servers on, and nothing else.
func useBastion(t *testing.T) {
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	port, published := publishPort(t, "22")
	closed, alsoPublished := publishPort(t, "81")
	runExample(t, "bastion", "--ssh-key="+key.Path, published, alsoPublished, "--wait=port=22")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var bastion *ssh.Client
	await(t, "login", func() (err error) {
		bastion, err = vm.Login(ctx, fmt.Sprintf("127.0.0.1:%d", port), key)
		return err
	})
	defer bastion.Close()
	behind, err := bastion.Dial("tcp", cloud.GuestIPv4+":22")
	if err != nil {
		t.Fatal(err)
	}
	greeting := make([]byte, 4)
	if _, err := io.ReadFull(behind, greeting); err != nil || string(greeting) != "SSH-" {
		t.Errorf("the server behind the bastion says %q, %v", greeting, err)
	}
	if _, err := bastion.Dial("tcp", cloud.Address+":80"); err == nil || !strings.Contains(err.Error(), "prohibited") {
		t.Errorf("a connection to a web server: %v", err)
	}
	session, err := bastion.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.CombinedOutput("id"); err == nil || len(out) > 0 {
		t.Errorf("a command: %q, %v", out, err)
	}
	// The firewall drops the packet. Without it, the machine would refuse the
	// connection, and QEMU would close its own one.
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", closed))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(greeting); !os.IsTimeout(err) {
		t.Errorf("port 81 is not filtered: %v", err)
	}
}

// The enclave image has what the enclave boots: its service runs, and ends the
// machine. A microVM has no parent instance, so that there is no heartbeat.
func useEnclave(t *testing.T) {
	dir := t.TempDir()
	mustSlipway(t, 0, "build", "--format=eif", "-o", dir, "examples/enclave.yml")
	_, measured := eifjudge.Read(t, filepath.Join(dir, "enclave.eif"))
	registers, err := os.ReadFile(filepath.Join(dir, "enclave.pcrs.json"))
	if err != nil || !strings.Contains(string(registers), measured.PCR0.String()) {
		t.Errorf("the registers are %s, %v; want PCR0 %s", registers, err, measured.PCR0)
	}
	machine := runToEnd(t, enclaveInMicroVM(t, filepath.Join(dir, "enclave.eif")))
	console := machine.ConsoleTail(100)
	if !strings.Contains(console, "the enclave runs on 6.") || !strings.Contains(console, contract.ExitStatus+"0") {
		t.Errorf("the service did not run and end the machine:\n%s", console)
	}
}

// The parent boots outside of EC2 too, and says why it runs no enclave. Nobody can
// replace the enclave image on its root.
func useEnclaveParent(t *testing.T) {
	image := strings.Repeat("enclave", 1000)
	runExample(t, "enclave-parent", filepath.Dir(tempFile(t, "enclave.eif", image)), "--format=raw-verity", "--uefi", "--mem=1G")
	if got := onExample(t, "enclave-parent", "cat /proc/1/root/etc/enclave.eif"); got != image {
		t.Errorf("the enclave image has %d bytes, want %d", len(got), len(image))
	}
	if got := onExample(t, "enclave-parent", "nsenter --target 1 --mount sh -c 'echo x >/etc/enclave.eif' 2>&1 || true"); !strings.Contains(got, "Read-only file system") {
		t.Errorf("writing to the enclave image: %q", got)
	}
	console, _ := mustSlipway(t, 0, "logs", "enclave-parent")
	if !strings.Contains(console, "enclaves: this machine cannot run enclaves: start an EC2 instance") {
		t.Errorf("the machine does not say that it has no enclaves:\n%s", console)
	}
}

// Without a Nitro Security Module, KMS releases nothing, and the service does not
// run. TestKMSDecrypt of guest/attest has a mock of both.
func useEnclaveSecret(t *testing.T) {
	dir := t.TempDir()
	mustSlipway(t, 0, "build", "--format=eif", "-o", dir, "--build-arg=ENCLAVE_ROLE=arn:aws:iam::123456789012:role/enclaves",
		"examples/enclave-secret.yml", filepath.Dir(tempFile(t, "password.kms", "ciphertext")))
	_, measured := eifjudge.Read(t, filepath.Join(dir, "enclave-secret.eif"))
	policy, err := os.ReadFile(filepath.Join(dir, "enclave-secret.kms-policy.json"))
	if err != nil || !strings.Contains(string(policy), measured.PCR0.String()) {
		t.Errorf("the policy is %s, %v; want PCR0 %s", policy, err, measured.PCR0)
	}
	console := runToEnd(t, enclaveInMicroVM(t, filepath.Join(dir, "enclave-secret.eif"))).ConsoleTail(100)
	if !strings.Contains(console, "/dev/nsm: no such file") || !strings.Contains(console, "onboot 000-secret: reboot") {
		t.Errorf("the enclave does not end without a Nitro Security Module:\n%s", console)
	}
	if strings.Contains(console, "the password has") {
		t.Errorf("the service runs without its secret:\n%s", console)
	}
}

// enclaveInMicroVM returns a microVM with what an enclave image boots.
func enclaveInMicroVM(t *testing.T, file string) vm.Config {
	t.Helper()
	image, _ := eifjudge.Read(t, file)
	dir := t.TempDir()
	return vm.Config{
		MicroVM: true, Cmdline: image.Cmdline, Memory: 512, NoNetwork: true, LogDir: stack.Artifacts(t),
		Kernel: eifjudge.Save(t, filepath.Join(dir, "kernel"), image.Kernel),
		Initrd: eifjudge.Save(t, filepath.Join(dir, "initrd"), sparse.Concat(image.Ramdisks...)),
	}
}

// The batch job is the user data, and the machine ends with its status.
func useBatch(t *testing.T) {
	job := tempFile(t, "job.sh", "grep ^PRETTY_NAME /etc/os-release\nexit 7\n")
	stdout, _ := mustSlipway(t, 7, "run", "--accel=tcg", "--progress=plain", "--user-data="+job, "examples/batch.yml")
	if !strings.Contains(stdout, `PRETTY_NAME="Debian GNU/Linux 13`) {
		t.Errorf("the job's output is not on the console:\n%s", stdout)
	}
}

// The Docker host runs a container, whose port and memory limit work. Its data is
// on the disk.
func useDockerHost(t *testing.T) {
	port, published := publishPort(t, "80")
	runExample(t, "docker-host", published, "--mem=2G", "--disk=1G:docker", "--ssh=until docker info >/dev/null 2>&1; do sleep 1; done")
	out := onExample(t, "docker-host", `set -e
		tar -c -C / bin/busybox | docker import --change 'ENTRYPOINT ["/bin/busybox"]' - box >/dev/null
		docker run --rm --memory 64m box cat /sys/fs/cgroup/memory.max
		docker run --detach --publish 80:80 box sh -c 'busybox mkdir /www; echo hello from a container >/www/index.html; exec busybox httpd -f -p 80 -h /www' >/dev/null
		nsenter --target 1 --mount grep -c ' /var/lib/docker ext4 ' /proc/mounts`)
	if out != "67108864\n1\n" {
		t.Errorf("in the machine: %q", out)
	}
	serves(t, port, "/", "hello from a container")
}

// The service of an image of Docker Hub answers, and runs as the user of the YAML.
func useDockerImage(t *testing.T) {
	port, published := publishPort(t, "8080")
	runExample(t, "docker-image", published, "--wait=port=8080", "--wait=text=service httpbin: healthy")
	serves(t, port, "/user-agent", "Go-http-client")
}

// What a service writes is there after the next boot, and not on the disk.
func useEncryptedDisk(t *testing.T) {
	const secret = "nobody reads this on the disk"
	key, state := tempFile(t, "disk.key", strings.Repeat("k", 32)), filepath.Join(t.TempDir(), "state")
	for _, command := range []string{"echo " + secret + " >/data/file; sync", "true"} {
		stdout, stderr := mustSlipway(t, 0, "run", "--accel=tcg", "--progress=plain", "--timeout=10m", "--secret=id=disk_key,src="+key, "--disk=64M:data", "--state="+state,
			"examples/encrypted-disk.yml", "--", command+"; cat /data/file; nsenter --target 1 --mount grep ' /var/data ' /proc/mounts")
		if !strings.HasPrefix(stdout, secret+"\n") || !strings.Contains(stdout, " /var/data ext4 rw") {
			t.Errorf("in the machine: %q\n%s", stdout, stderr)
		}
	}
	disk, err := os.ReadFile(filepath.Join(state, "data.raw"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(disk, []byte("LUKS\xba\xbe")) || bytes.Contains(disk, []byte(secret)) {
		t.Error("the disk is not encrypted")
	}
}

// Only the machine that sealed the key of its disk reads the disk, and it attests the
// predicted measurements. Another machine, another TPM and a disk with a null cipher
// are refused.
func useSealedDisk(t *testing.T) {
	need.Program(t, "swtpm", "swtpm")
	const secret = "nobody reads this on the disk"
	state := filepath.Join(t.TempDir(), "state")
	disk := filepath.Join(state, "data.raw")
	flags := []string{"run", "--accel=tcg", "--progress=plain", "--timeout=5m", "--format=raw-efi", "--uefi", "--tpm", "--disk=64M:data", "--state=" + state}
	attestation := "; until wget -q -O - http://127.0.0.1:8090/attestation?nonce=" + strings.Repeat("01", 16) + "; do sleep 1; done"
	for _, command := range []string{"echo " + secret + " >/data/file; sync", "true"} {
		stdout, stderr := mustSlipway(t, 0, append(slices.Clone(flags), "examples/sealed-disk.yml", "--", command+"; cat /data/file"+attestation)...)
		text, document, _ := strings.Cut(stdout, "\n")
		if text != secret {
			t.Fatalf("in the machine: %q\n%s", stdout, stderr)
		}
		var attested struct {
			Type, Quote string
			PCRs        map[string]map[string]string
		}
		if err := json.Unmarshal([]byte(document), &attested); err != nil || attested.Type != "tpm2" || attested.Quote == "" {
			t.Fatalf("%v: %s", err, document)
		}
		checkAttested(t, attested.PCRs["sha256"])
	}
	written, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(written, []byte("LUKS\xba\xbe")) || bytes.Contains(written, []byte(secret)) {
		t.Error("the disk is not encrypted")
	}

	refused := func(what, reason, yaml string) {
		t.Helper()
		_, stderr, exit := slipway(t, "..", append(slices.Clone(flags), "--detach", "--name=sealed", "--wait=text="+reason, yaml)...)
		console, _, _ := slipway(t, "..", "logs", "sealed")
		slipway(t, "..", "stop", "--timeout=0", "sealed")
		if exit != 0 || strings.Contains(console, "machine is up") {
			t.Errorf("%s: exit %d: %s\n%s", what, exit, stderr, console)
		}
	}
	text, err := os.ReadFile("../examples/sealed-disk.yml")
	if err != nil {
		t.Fatal(err)
	}
	refused("another machine", "the values of the PCRs .* were others", tempFile(t, "changed.yml", string(text)+"files: [{path: etc/changed, contents: x}]\n"))
	null := bytes.ReplaceAll(written, []byte("aes-xts-plain64"), []byte("cipher_null-ecb"))
	for at := 0; at <= 16<<10; at += 16 << 10 { // both copies of the header have a checksum
		header := null[at : at+16<<10]
		clear(header[448:512])
		sum := sha256.Sum256(header)
		copy(header[448:], sum[:])
	}
	for name, content := range map[string][]byte{`the cipher .cipher_null-ecb., which does not protect`: null, "for another context": append(slices.Clone(written[:40<<10]), written[40<<10]+1)} {
		if err := os.WriteFile(disk, slices.Concat(content, written[len(content):]), 0o600); err != nil {
			t.Fatal(err)
		}
		refused("a changed header", name, "examples/sealed-disk.yml")
	}
	if err := errors.Join(os.WriteFile(disk, written, 0o600), os.RemoveAll(filepath.Join(state, "tpm"))); err != nil {
		t.Fatal(err)
	}
	refused("another TPM", "another TPM did", "examples/sealed-disk.yml")
}

// checkAttested compares the registers that a machine attests with the predictions
// for its disk.
func checkAttested(t *testing.T, got map[string]string) {
	t.Helper()
	dir := t.TempDir()
	mustSlipway(t, 0, "build", "--progress=plain", "--platform=linux/amd64", "--format=raw-efi", "--output="+dir, "examples/sealed-disk.yml")
	predicted, _ := mustSlipway(t, 0, "measurements", "--json", filepath.Join(dir, "sealed-disk-efi.img"))
	var want struct{ PCRs map[string]map[string]string }
	if err := json.Unmarshal([]byte(predicted), &want); err != nil {
		t.Fatal(err)
	}
	for _, pcr := range []string{"4", "7", "9", "11", "12"} {
		if got[pcr] != want.PCRs["sha256"][pcr] {
			t.Errorf("PCR %s is %s, predicted %s", pcr, got[pcr], want.PCRs["sha256"][pcr])
		}
	}
}

// The kubelet runs its static pod, with a limit on its memory, from a registry that
// a mirror replaces.
func useKubernetesNode(t *testing.T) {
	push(t, "testdata/pause", stack.Registry+"/pause:3.10.1")
	text, err := os.ReadFile("../examples/k8s-node-skeleton.yml")
	if err != nil {
		t.Fatal(err)
	}
	_, registryPort, _ := net.SplitHostPort(stack.Registry)
	machine := string(text) // files is its last section
	for _, registry := range []string{"docker.io", "registry.k8s.io"} {
		machine += fmt.Sprintf("  - {path: etc/containerd/certs.d/%s/hosts.toml, contents: '[host.\"http://169.254.0.2:%s\"]', mode: \"0644\"}\n", registry, registryPort)
	}
	port, published := publishPort(t, "8080")
	runExample(t, tempFile(t, "k8s-node-skeleton.yml", machine), published, "--mem=2G", "--disk=1G:kubelet", "--wait=text=service kubelet: healthy")
	serves(t, port, "/user-agent", "Go-http-client")
	out := onExample(t, "k8s-node-skeleton", `nsenter --target 1 --mount sh -c '
		cat /sys/fs/cgroup/kubepods/burstable/pod*/*/memory.max /sys/fs/cgroup/kubepods/pod*/*/memory.max; grep -c " /var/lib/kubelet ext4 " /proc/mounts' 2>/dev/null`)
	if !strings.Contains(out, "67108864\n") || !strings.HasSuffix(out, "1\n") {
		t.Errorf("in the machine: %q", out)
	}
}

// The kernel kills the service at its limit, and the init restarts it.
func useMemoryLimit(t *testing.T) {
	port, published := publishPort(t, "8080")
	runExample(t, "memory-limit", published, "--wait=port=8080")
	serves(t, port, "/", "memory.max 67108864\n")
	for range 9 {
		if _, err := fetch(port, "/grow"); err != nil {
			break
		}
	}
	await(t, "the end of the service", func() error {
		console, _ := mustSlipway(t, 0, "logs", "memory-limit")
		if !strings.Contains(console, "service web: ended, killed by SIGKILL, out of memory") {
			return fmt.Errorf("the console does not show it:\n%s", console)
		}
		return nil
	})
	serves(t, port, "/", "memory.max 67108864\n")
}

// The clock is that of the NTP server, and the metrics say so.
func useMetrics(t *testing.T) {
	year := time.Now().Year() + 3
	server := ntp.Serve(t, time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC))
	text, err := os.ReadFile("../examples/metrics.yml")
	if err != nil {
		t.Fatal(err)
	}
	const image = "    image: slipwaybuild/chrony:v1\n"
	file := tempFile(t, "metrics.yml", strings.Replace(string(text), image, image+fmt.Sprintf("    command: [/usr/bin/chrony, server 169.254.0.2 port %d iburst]\n", server), 1))
	port, published := publishPort(t, "9100")
	runExample(t, file, published, "--wait=port=9100", "--wait=text=service node_exporter: healthy")
	for _, want := range []string{"\nnode_uname_info{", "\nslipway_service_", "\nnode_timex_sync_status 1\n"} {
		serves(t, port, "/metrics", want)
	}
	if out := onExample(t, "metrics", "date +%Y"); out != fmt.Sprintln(year) {
		t.Errorf("the year is %s", out)
	}
}

// A virtual machine with UEFI gets its key and its name from a NoCloud disk.
func useQEMU(t *testing.T) {
	runExample(t, "qemu", "--uefi", "--metadata=nocloud", "--hostname=chosen", "--wait=service=sshd")
	if out := onExample(t, "qemu", "hostname; cat /run/config/provider; nsenter --target 1 --mount ls -d /sys/firmware/efi"); !strings.HasPrefix(out, "chosen\n") || !strings.HasSuffix(out, "/sys/firmware/efi\n") {
		t.Errorf("in the machine: %q", out)
	}
}

// The machine has its address in a network without DHCP.
func useStaticAddress(t *testing.T) {
	dir := t.TempDir()
	mustSlipway(t, 0, "build", "--progress=plain", "-o", dir, "examples/static-address.yml")
	port := freePort(t)
	boot(t, filepath.Join(dir, "static-address"), vm.Config{Arguments: []string{
		"-netdev", fmt.Sprintf("user,id=lan,net=192.0.2.0/24,host=192.0.2.1,hostfwd=tcp:127.0.0.1:%d-192.0.2.10:80", port),
		"-device", "virtio-net-pci,netdev=lan,romfile=",
	}})
	serves(t, port, "/", "Welcome to nginx!")
}

// boot boots the kernel and the initramfs of a build without QEMU's usual
// network.
func boot(t *testing.T, prefix string, config vm.Config) {
	t.Helper()
	config.Kernel, config.Initrd, config.Cmdline = prefix+"-kernel", prefix+"-initrd.img", vm.Consoles["amd64"]
	config.NoNetwork, config.LogDir = true, stack.Artifacts(t)
	m, err := vm.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Kill()
		if t.Failed() {
			t.Logf("the console:\n%s", m.ConsoleTail(60))
		}
	})
}

// The pages come from the user data.
func useUserData(t *testing.T) {
	site := tempFile(t, "site.json", `{"site": {"entries": {"index.html": {"content": "<h1>From user data</h1>", "perm": "0644"}}}}`)
	port, published := publishPort(t, "80")
	runExample(t, "user-data", published, "--user-data="+site, "--wait=port=80")
	serves(t, port, "/", "<h1>From user data</h1>")
}

// A peer in another network reaches the gateway's network through the tunnel.
func useWireGuard(t *testing.T) {
	port, published := publishPort(t, "51820/udp")
	gateway, peer := newWireGuardKey(t), newWireGuardKey(t)
	config := func(address string, own, other wireGuardKey, listen, allowed string) string {
		return tempFile(t, "wg0.conf", fmt.Sprintf("[Interface]\nAddress = %s/24\n%s\nPrivateKey = %s\n\n[Peer]\nPublicKey = %s\nAllowedIPs = %s\n",
			address, listen, own.private, other.public, allowed))
	}
	runExample(t, "wireguard", published, "--secret=id=wg0,src="+config("10.8.0.1", gateway, peer, "ListenPort = 51820", "10.8.0.2/32"), "--wait=service=sshd")

	// The peer is the same machine with the configuration of a peer.
	dir := t.TempDir()
	mustSlipway(t, 0, "build", "--progress=plain", "-o", dir, "examples/wireguard.yml",
		"--secret=id=wg0,src="+config("10.8.0.2", peer, gateway, "", fmt.Sprintf("10.8.0.1/32, %s/32\nEndpoint = 10.9.0.2:%d", cloud.Address, port)))
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	disk, err := os.Create(filepath.Join(t.TempDir(), "cidata.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := (&cloud.Instance{ID: "i-peer", Hostname: "peer", PublicKeys: []string{key.Public}}).WriteNoCloud(disk); err != nil {
		t.Fatal(err)
	}
	login := freePort(t)
	boot(t, filepath.Join(dir, "wireguard"), vm.Config{
		Data: []vm.Drive{{File: disk.Name(), Serial: cloud.NoCloudLabel}},
		Arguments: []string{
			"-netdev", fmt.Sprintf("user,id=lan,net=10.9.0.0/24,hostfwd=tcp:127.0.0.1:%d-:22", login),
			"-device", "virtio-net-pci,netdev=lan,romfile=",
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	run := func(command string) (string, error) {
		client, err := vm.Login(ctx, fmt.Sprintf("127.0.0.1:%d", login), key)
		if err != nil {
			return "", err
		}
		defer client.Close()
		session, err := client.NewSession()
		if err != nil {
			return "", err
		}
		out, err := session.CombinedOutput(command)
		return string(out), err
	}
	for what, c := range map[string]struct{ command, want string }{
		"the gateway":     {"nc -w 5 10.8.0.1 22 </dev/null", "SSH-2.0-"},
		"a server behind": {`printf 'PUT /latest/api/token HTTP/1.0\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\n\r\n' | nc -w 5 ` + cloud.Address + " 80", "200 OK"},
	} {
		await(t, what, func() error {
			out, err := run(c.command)
			if !strings.Contains(out, c.want) {
				return fmt.Errorf("%q, %v", out, err)
			}
			return nil
		})
	}
	if out := onExample(t, "wireguard", "ip address show wg0"); !strings.Contains(out, "inet 10.8.0.1/24") {
		t.Errorf("the gateway has %q", out)
	}
}

// A wireGuardKey is a key pair as wg prints it.
type wireGuardKey struct{ private, public string }

func newWireGuardKey(t *testing.T) wireGuardKey {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return wireGuardKey{base64.StdEncoding.EncodeToString(key.Bytes()), base64.StdEncoding.EncodeToString(key.PublicKey().Bytes())}
}
