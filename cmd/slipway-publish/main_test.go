package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bootdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/disk/disktest"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/exporter/uki"
	"github.com/slipway-build/slipway/internal/bootkeys"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

// TestMain lets the test binary run as the command, so that tests can kill it.
func TestMain(m *testing.M) {
	if os.Getenv("SLIPWAY_PUBLISH_COMMAND") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

var kills = flag.Int("kills", 5, "number of random points at which to kill the publisher")

func content(seed uint64, blocks int) []byte {
	data := make([]byte, blocks*disk.BlockSize)
	random := rand.NewChaCha8([32]byte{byte(seed)})
	random.Read(data)
	clear(data[446:512])
	data[446] = 0x80                                       // an active partition
	copy(data[450:], []byte{0x83, 0, 0, 0, 8, 0, 0, 0, 8}) // from sector 8
	copy(data[510:], "\x55\xaa")
	return data
}

// A host is where the command runs: a directory with a disk and the state.
type host struct {
	dir  string
	fake *awstest.Server
}

// newHost returns a host. No request of its commands may be invalid.
func newHost(t testing.TB, fake *awstest.Server, data []byte) host {
	t.Helper()
	h := host{t.TempDir(), fake}
	if err := os.WriteFile(filepath.Join(h.dir, "machine.raw"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, v := range fake.Violations() {
			t.Error(v)
		}
	})
	return h
}

func (h host) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), h.fake.Env()...)
	cmd.Env = append(cmd.Env, "SLIPWAY_PUBLISH_COMMAND=1", "XDG_STATE_HOME="+filepath.Join(h.dir, "state"))
	return cmd
}

// run runs the command. It returns its standard output, exit status and
// standard error.
func (h host) run(stdin io.Reader, args ...string) (out string, code int, message string) {
	cmd := h.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return "", -1, err.Error()
	}
	return stdout.String(), code, stderr.String()
}

func equal(t testing.TB, fake *awstest.Server, image *ami.Image, data []byte) {
	t.Helper()
	volume, err := fake.Disk(image.Region, image.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := volume.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Errorf("%s differs from the disk", image.Snapshot)
	}
}

func TestFileAndPipe(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	data := content(1, 5)
	h := newHost(t, fake, data)
	out, code, message := h.run(nil, "aws", "--name", "machine-1", "machine.raw")
	if code != 0 || !strings.HasPrefix(out, "ami-") || !strings.Contains(out, "aws ec2 run-instances --region us-east-1 --image-id ami-") {
		t.Fatalf("exit %d: %s%s", code, out, message)
	}
	out, code, message = h.run(bytes.NewReader(data), "aws", "-", "--json", "--name", "machine-1")
	var result ami.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, message)
	}
	if !result.Images[0].Existing {
		t.Errorf("publishing from a pipe did not find the image of the file: %s", out)
	}
	equal(t, fake, result.Images[0], data)
}

// The transfer manager logs an upload that S3 has completed already, because
// the first response was lost.
func TestLogsOfLibraries(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{Faults: func(r awstest.Request) awstest.Fault {
		if r.Operation == "CompleteMultipartUpload" && r.Attempt == 1 {
			return awstest.LostError
		}
		return awstest.None
	}})
	fake.CreateBucket(awstest.Region, "disks")
	h := newHost(t, fake, content(1, 40)) // more than one part
	_, code, message := h.run(nil, "aws", "--name", "machine-1", "--method", "import", "--bucket", "disks", "machine.raw")
	if n := fake.Count("s3:CompleteMultipartUpload"); code != 0 || n != 2 {
		t.Fatalf("exit %d after %d requests: %s", code, n, message)
	}
	for line := range strings.Lines(message) {
		if !strings.HasPrefix(line, "slipway-publish: warning: ") && !strings.HasPrefix(line, "us-east-1: ") {
			t.Errorf("not a line of slipway-publish: %q", line)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	h := newHost(t, awstest.StartTLS(t, awstest.Knobs{}), nil)
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--version"}, "slipway-publish version "},
		{[]string{"aws", "--version"}, "slipway-publish version "},
		{[]string{"--help"}, "Usage: slipway-publish COMMAND"},
		{[]string{"help", "aws"}, "Usage: slipway-publish aws [flags] FILE|-"},
		{[]string{"aws", "--help"}, "--deprecate-after age"},
		{[]string{"aws", "gc", "-h"}, "--older-than age"},
	} {
		if out, code, message := h.run(nil, test.args...); code != 0 || !strings.Contains(out, test.want) || message != "" {
			t.Errorf("%v: exit %d: %s%s; want %q", test.args, code, out, message, test.want)
		}
	}
}

func TestRegisterFileAndGC(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	h := newHost(t, fake, content(1, 5))
	fields := "SriovNetSupport: simple\nBlockDeviceMappings:\n  - DeviceName: /dev/xvda\n    Ebs: {VolumeSize: 12, Iops: 6000}\n"
	if err := os.WriteFile(filepath.Join(h.dir, "register.yml"), []byte(fields), 0o600); err != nil {
		t.Fatal(err)
	}
	dry := []string{"aws", "--name", "machine-1", "--register", "register.yml", "--dry-run", "machine.raw"}
	if out, code, message := h.run(nil, dry...); code != 0 || !strings.Contains(out, `would register "machine-1" for x86_64, boot mode legacy-bios`) {
		t.Fatalf("exit %d: %s%s", code, out, message)
	}
	if out, code, message := h.run(nil, "aws", "--name", "machine-1", "--register", "register.yml", "--deprecate-after", "90d", "machine.raw"); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, message)
	}
	if out, code, message := h.run(nil, dry...); code != 0 || !strings.Contains(out, "exists: nothing to do") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	if out, code, message := h.run(nil, "aws", "gc", "--older-than", "0s", "--dry-run"); code != 0 || out != "would remove 0 leftovers\n" {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
	if _, code, message := h.run(nil, "aws", "gc", "--older-than", "soon"); code != 2 || !strings.Contains(message, "90d or 12h") {
		t.Errorf("exit %d: %s", code, message)
	}
}

func TestExitCodes(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	h := newHost(t, fake, content(1, 2))
	for name, data := range map[string]string{
		"empty.raw":     "",
		"text.raw":      strings.Repeat("this is not a disk\n", 100),
		"short.raw":     "x",
		"qcow2.raw":     "QFI\xfb" + strings.Repeat("\x00", 2000),
		"register.yml":  "TpmSupprt: v2.0\n",
		"register2.yml": "Name: other\n",
	} {
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sparse := func(name string, size int64) error {
		file, err := os.Create(filepath.Join(h.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		return file.Truncate(size)
	}
	if err := sparse("large.raw", 17e12); err != nil {
		t.Fatal(err)
	}
	huge := "larger than any volume"
	if err := sparse("huge.raw", 18e12); err != nil { // ext4 does not support this size
		huge = "is empty"
	}
	if err := os.Mkdir(filepath.Join(h.dir, "directory.raw"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, code, message := h.run(nil, "aws", "--name", "taken", "--volume-type", "gp2", "machine.raw"); code != 0 {
		t.Fatal(message)
	}
	for _, test := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "requires a command"},
		{[]string{"aws", "--name", "x1x"}, 2, "0 disks instead of one"},
		{[]string{"aws", "gc", "machine.raw"}, 2, "machine.raw"},
		{[]string{"aws", "-"}, 2, "--name is required"},
		{[]string{"aws", "--name", "x$", "machine.raw"}, 2, `invalid AMI name "x$"`},
		{[]string{"aws", "--nam", "x", "machine.raw"}, 2, `did you mean "--name"?`},
		{[]string{"aws", "--name", "x1x", "--method", "import", "machine.raw"}, 2, "--bucket"},
		{[]string{"aws", "--name", "x1x", "--register", "register.yml", "machine.raw"}, 2, "TpmSupprt"},
		{[]string{"aws", "--name", "x1x", "--register", "register2.yml", "machine.raw"}, 2, "use --name"},
		{[]string{"aws", "--name", "x1x", "missing.raw"}, 3, "no such file"},
		{[]string{"aws", "--name", "x1x", "empty.raw"}, 3, "is empty"},
		{[]string{"aws", "--name", "x1x", "text.raw"}, 3, "not a disk image"},
		{[]string{"aws", "--name", "x1x", "short.raw"}, 3, "not a disk image"},
		{[]string{"aws", "--name", "x1x", "qcow2.raw"}, 3, "a qcow2 image"},
		{[]string{"aws", "--name", "x1x", "large.raw"}, 3, "no partition table"},
		{[]string{"aws", "--name", "x1x", "huge.raw"}, 3, huge},
		{[]string{"aws", "--name", "x1x", "directory.raw"}, 3, "neither a file nor a block device"},
		{[]string{"aws", "--name", "x1x", "--boot-mode", "uefi", "machine.raw"}, 3, "cannot boot as uefi"},
		{[]string{"aws", "--name", "taken", "machine.raw"}, 6, "other settings"},
	} {
		_, code, message := h.run(nil, test.args...)
		if code != test.code || !strings.Contains(message, test.want) || strings.Count(message, "\n") != 1 {
			t.Errorf("%v: exit %d: %q; want %d and one line with %q", test.args, code, message, test.code, test.want)
		}
	}

	cmd := h.command("aws", "--name", "x1x", "machine.raw")
	cmd.Env = append(os.Environ(), "SLIPWAY_PUBLISH_COMMAND=1", "HOME="+h.dir, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_PROFILE=",
		"AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 4 || !strings.Contains(string(out), "no AWS credentials") {
		t.Errorf("without credentials: %v: %s", cmd.ProcessState, out)
	}
	other := host{h.dir, awstest.StartTLS(t, awstest.Knobs{})} // records a violation
	cmd = other.command("aws", "--name", "x1x", "machine.raw")
	cmd.Env = append(cmd.Env, "AWS_SECRET_ACCESS_KEY=wrong")
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 4 || !strings.HasSuffix(string(out), "; check with: aws sts get-caller-identity\n") {
		t.Errorf("with wrong credentials: %v: %s", cmd.ProcessState, out)
	}
	other.fake.SetKnobs(awstest.Knobs{NotOptedIn: []string{"af-south-1"}})
	if _, code, message := other.run(nil, "aws", "--name", "x1x", "--region", "af-south-1", "machine.raw"); code != 4 || !strings.HasSuffix(message, "the account has not enabled the region\n") {
		t.Errorf("in a region that is not enabled: exit %d: %s", code, message)
	}
}

// TestKill kills the command with SIGKILL after a random number of requests and
// runs it again.
func TestKill(t *testing.T) {
	for i := range *kills {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		fake := awstest.StartTLS(t, awstest.Knobs{Latency: time.Millisecond, Settle: 100 * time.Millisecond})
		fake.CreateBucket("us-east-1", "disks")
		data := content(uint64(i), 40)
		h := newHost(t, fake, data)
		args := []string{"aws", "--name", "machine-1", "--json", "--workers", "4", "machine.raw"}
		limit := 1 + random.Int64N(55)
		if i%5 == 4 {
			args = append(args, "--method", "import", "--bucket", "disks")
			limit = 1 + random.Int64N(15)
		}
		cmd := h.command(args...)
		var requests atomic.Int64
		killed := make(chan struct{})
		knobs := fake.Knobs()
		knobs.Faults = func(awstest.Request) awstest.Fault {
			if requests.Add(1) == limit {
				cmd.Process.Kill()
				close(killed)
			}
			return awstest.None
		}
		fake.SetKnobs(knobs)
		err := cmd.Run()
		select {
		case <-killed:
		default:
			t.Logf("kill %d: ended before request %d: %v", i, limit, err)
		}
		knobs.Faults = nil
		fake.SetKnobs(knobs)

		out, code, message := h.run(nil, args...)
		var result ami.Result
		if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
			t.Fatalf("kill %d at request %d: exit %d: %s", i, limit, code, message)
		}
		equal(t, fake, result.Images[0], data)
		snapshots := fake.Snapshots()
		if len(snapshots) != 1 || len(fake.Orphans()) > 0 {
			t.Errorf("kill %d at request %d: snapshots %v, left behind %v", i, limit, snapshots, fake.Orphans())
		}
		// Blocks whose response did not reach the command may be written again.
		if n := snapshots[0].Rewritten; n > 4 {
			t.Errorf("kill %d at request %d: %d blocks were written twice", i, limit, n)
		}
		if left, _ := filepath.Glob(filepath.Join(h.dir, "state", "slipway", "*")); len(left) > 0 {
			t.Errorf("kill %d: state left behind: %v", i, left)
		}
	}
}

// TestCredentialErrors checks that each source of credentials that fails says
// why.
func TestCredentialErrors(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	h := newHost(t, fake, content(1, 2))
	config := filepath.Join(h.dir, "config")
	if err := os.WriteFile(config, []byte(`[profile sso]
sso_session = work
sso_account_id = 123456789012
sso_role_name = publish
[sso-session work]
sso_region = us-east-1
sso_start_url = https://example.awsapps.com/start
[profile process]
credential_process = sh -c "echo no card >&2; exit 3"
[profile web]
role_arn = arn:aws:iam::123456789012:role/publish
web_identity_token_file = /no/such/token
[profile base]
aws_access_key_id = AKIDEXAMPLE
aws_secret_access_key = secret
[profile mfa]
role_arn = arn:aws:iam::123456789012:role/publish
source_profile = base
mfa_serial = arn:aws:iam::123456789012:mfa/me
`), 0o600); err != nil {
		t.Fatal(err)
	}
	for profile, want := range map[string]string{
		"sso":     "run aws sso login --profile sso",
		"process": "credential_process failed: ",
		"web":     "open /no/such/token: no such file or directory",
		"mfa":     "requires the code of an MFA device: run the command in a terminal",
	} {
		cmd := h.command("aws", "--name", "x1x", "machine.raw")
		cmd.Env = append(os.Environ(), "SLIPWAY_PUBLISH_COMMAND=1", "HOME="+h.dir, "AWS_PROFILE="+profile, "AWS_CONFIG_FILE="+config,
			"AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // without a terminal
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != 4 || !strings.Contains(string(out), want) {
			t.Errorf("%s: exit %d: %s; want 4 and %q", profile, code, out, want)
		}
	}
}

// An AMI with keys for Secure Boot has them in its UefiData, boots with UEFI and has
// a TPM. A verification with the keys succeeds, and one without fails.
func TestUEFIData(t *testing.T) {
	keys, err := bootkeys.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	fake := awstest.StartTLS(t, awstest.Knobs{})
	h := newHost(t, fake, nil)
	if err := keys.Write(filepath.Join(h.dir, "keys")); err != nil {
		t.Fatal(err)
	}
	signer, err := uki.NewSigner(keys.DB.Certificate, keys.DB.Private)
	if err != nil {
		t.Fatal(err)
	}
	loaders, err := bootdisk.ReadLoaders(disktest.Loaders(t), "amd64")
	if err != nil {
		t.Fatal(err)
	}
	d, err := bootdisk.New(bootdisk.UKI, bootdisk.Contents{Kernel: sparse.Bytes(disktest.Kernel("6.12.0")), Signer: signer}, loaders, 0, time.Unix(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(h.dir, "signed.img"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.WriteFile(f), f.Close()); err != nil {
		t.Fatal(err)
	}

	out, code, message := h.run(nil, "aws", "--json", "--name", "signed", "--uefi-data", "keys/uefi-data", "signed.img")
	var result ami.Result
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 0 {
		t.Fatalf("exit %d, %v: %s%s", code, err, out, message)
	}
	id := result.Images[0].Image
	if out, code, message := h.run(nil, "aws", "verify", id, "--uefi-data", "keys/uefi-data", "signed.img"); code != 0 {
		t.Errorf("verify: exit %d: %s%s", code, out, message)
	}
	out, code, _ = h.run(nil, "aws", "verify", id, "signed.img")
	if code != 1 || !strings.Contains(out, "TpmSupport") || !strings.Contains(out, "UefiData") {
		t.Errorf("verify without keys: exit %d: %s", code, out)
	}
	for want, args := range map[string][]string{
		"--uefi-data requires --boot-mode uefi, not uefi-preferred": {"--uefi-data", "keys/uefi-data", "--boot-mode", "uefi-preferred"},
		"invalid UEFI variables: UefiData":                          {"--uefi-data", "keys/PK.crt"},
		"no such file":                                              {"--uefi-data", "none"},
	} {
		if _, code, message := h.run(nil, append([]string{"aws", "--name", "other", "signed.img"}, args...)...); code == 0 || !strings.Contains(message, want) {
			t.Errorf("exit %d: %s, want %s", code, message, want)
		}
	}
}
