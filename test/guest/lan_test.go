package guest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/testutil/need"
	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
)

// A lan is the network of a cloud in a network namespace. Its host is router,
// DHCP server and metadata service. Each card of a machine is on a link of its
// own, tap0, tap1, …
type lan struct {
	namespace string      // path
	calls     chan func() // functions to call in the namespace
}

// newLAN creates a network with links that have the given addresses of the
// host. Addresses of the metadata service are on the loopback interface.
func newLAN(t *testing.T, links ...[]string) *lan {
	t.Helper()
	need.Root(t)
	need.Program(t, "dnsmasq", "dnsmasq-base")
	need.Program(t, "ip", "iproute2")
	l := &lan{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		l.namespace = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		for call := range l.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(l.calls) })
	l.run(t, "ip", "link", "set", "lo", "up")
	// A packet must come through the interface that leads to its source.
	l.run(t, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding")
	for i, addresses := range links {
		tap := fmt.Sprintf("tap%d", i)
		l.run(t, "ip", "tuntap", "add", tap, "mode", "tap")
		for _, address := range append(addresses, "fe80::1/64") {
			l.run(t, "ip", "address", "add", address, "dev", tap, "nodad")
		}
		l.run(t, "ip", "link", "set", tap, "up")
	}
	return l
}

// command returns a command that runs in the network.
func (l *lan) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + l.namespace}, args...)...)
}

func (l *lan) run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := l.command(t.Context(), args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// dnsmasq runs the DHCP server on a link and returns a function that stops it.
func (l *lan) dnsmasq(t *testing.T, tap string, args ...string) (stop func()) {
	t.Helper()
	dir := stack.Artifacts(t)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(dir, "dnsmasq-"+tap+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := l.command(ctx, append([]string{"dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping",
		"--user=root", "--log-facility=-", "--log-dhcp", "--dhcp-authoritative", "--pid-file=",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases"), "--interface=" + tap, "--bind-interfaces"}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cancel()
		cmd.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// imds serves metadata at addresses of the loopback interface, with version 2
// only. It answers 503 while down is true.
func (l *lan) imds(t *testing.T, key vm.Key, down *atomic.Bool, addresses ...string) {
	t.Helper()
	values := map[string]string{
		"/latest/meta-data/instance-id":               "i-1",
		"/latest/meta-data/public-keys/":              "0=key",
		"/latest/meta-data/public-keys/0/openssh-key": key.Public,
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value, ok := values[r.URL.Path]
		switch {
		case down.Load():
			http.Error(w, "down", http.StatusServiceUnavailable)
		case r.Method == http.MethodPut:
			io.WriteString(w, "token")
		case r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token":
			http.Error(w, "no token", http.StatusUnauthorized)
		case !ok:
			http.NotFound(w, r)
		default:
			io.WriteString(w, value)
		}
	})
	for _, address := range addresses {
		bits := "/32"
		if strings.Contains(address, ":") {
			bits = "/128"
		}
		l.run(t, "ip", "address", "add", address+bits, "dev", "lo", "nodad")
		listening := make(chan error)
		var listener net.Listener
		l.calls <- func() {
			var err error
			listener, err = net.Listen("tcp", net.JoinHostPort(address, "80"))
			listening <- err
		}
		if err := <-listening; err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: handler}
		go server.Serve(listener)
		t.Cleanup(func() { server.Close() })
	}
}

// boot boots a machine of EC2 whose cards are on the first links.
func (l *lan) boot(t *testing.T, dir string, cards int) *guest {
	t.Helper()
	arguments := []string{"-smbios", "type=1,manufacturer=Amazon EC2"}
	for i := range 2 {
		arguments = append(arguments, "-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d", i, i+1))
	}
	for i := range cards {
		arguments = append(arguments, "-netdev", netdev(i), "-device", card(i))
	}
	return bootWith(t, dir, vm.Config{
		NoNetwork: true, Arguments: arguments, Wrapper: []string{"nsenter", "--net=" + l.namespace},
	})
}

func netdev(i int) string {
	return fmt.Sprintf("tap,id=net%d,ifname=tap%d,script=no,downscript=no", i, i)
}

func card(i int) string {
	return fmt.Sprintf("virtio-net-pci,id=card%d,netdev=net%d,bus=port%d,mac=52:54:00:00:00:0%d,romfile=", i, i, i, i)
}

func sshCommand(key vm.Key) []string {
	return []string{"ssh", "-F", "none", "-i", key.Path, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=20"}
}

// ssh runs a command on the machine at an address, as soon as it can log in
// there, and returns its output.
func (l *lan) ssh(t *testing.T, m *guest, key vm.Key, address, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for {
		cmd := l.command(ctx, append(sshCommand(key), "root@"+address, command)...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err == nil {
			return string(out)
		}
		if ctx.Err() != nil {
			t.Fatalf("ssh %s: %v: %s", address, err, stderr.String())
		}
		time.Sleep(2 * time.Second)
	}
}

// await runs a command until its output has all texts in want and none in not.
func (l *lan) await(t *testing.T, m *guest, key vm.Key, address, command string, want, not []string) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Second) {
		out, ok := l.ssh(t, m, key, address, command), true
		for _, text := range want {
			ok = ok && strings.Contains(out, text)
		}
		for _, text := range not {
			ok = ok && !strings.Contains(out, text)
		}
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: want %q and none of %q in:\n%s", command, want, not, out)
		}
	}
}
