// Command metadata asks the cloud about this machine and writes the answers to
// files in /run/config, where services find them, as the package metadata of
// LinuxKit does. It runs once, as an onboot container after the DHCP client. With
// -wait it runs as a service that asks again until the cloud answers.
//
// It writes provider, hostname, userdata and other values that the provider has
// (instance_id, local_ipv4, …), one value per file without a newline;
// ssh/authorized_keys, one key per line; and the tree in user data, if there is
// one. Then it sets the host name. Values that the provider does not have get
// no file, except userdata and ssh/authorized_keys: these always exist, so that
// containers can bind them. With -network, it also configures the network
// interfaces with the addresses in network.json.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A provider is the metadata service of a cloud, or another source of data for
// a machine.
type provider struct {
	name  string // as an argument
	title string // in the file "provider", as in LinuxKit
	// here reports whether the platform identifies itself as this provider. It
	// is nil if it never does.
	here func(platform) bool
	// source is the last parameter of fetch: the URL of a service, or where
	// else to look.
	source string
	fetch  func(ctx context.Context, c *client, source string) (*instance, error)
}

func (p provider) remote() bool { return strings.Contains(p.source, "://") }

// linkLocal is the address of the service in most clouds.
const linkLocal = "http://169.254.169.254"

// providers are all providers, preferred ones first. OpenStack is the last one
// with its address, because other clouds imitate its service.
var providers = []provider{
	{"cmdline", "CMDLINE", nil, "/", fetchCmdline},
	{"reserve", "RESERVE", nil, "/", fetchReserve},
	{"vmware", "VMWARE", onVMware, "/", fetchVMware},
	{"cdrom", "CDROM", nil, "/", fetchMedia},
	{"aws", "AWS", onAWS, linkLocal, fetchAWS},
	{"gcp", "GCP", is("product_name", "Google Compute Engine"), "http://169.254.169.254", fetchGCP},
	{"azure", "Azure", is("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"), linkLocal, fetchAzure},
	{"hetzner", "Hetzner", is("sys_vendor", "Hetzner"), linkLocal, fetchHetzner},
	{"digitalocean", "DigitalOcean", is("sys_vendor", "DigitalOcean"), linkLocal, fetchDigitalOcean},
	{"vultr", "Vultr", is("sys_vendor", "Vultr"), linkLocal, fetchVultr},
	{"scaleway", "Scaleway", is("sys_vendor", "Scaleway"), "http://169.254.42.42", fetchScaleway},
	{"openstack", "OpenStack", onOpenStack, linkLocal, fetchOpenStack},
	{"equinixmetal", "EquinixMetal", nil, "https://metadata.platformequinix.com", fetchEquinixMetal},
}

// onAWS follows
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html.
// Older machines run on Xen.
func onAWS(p platform) bool {
	return p.has("sys_vendor", "Amazon EC2") || p.has("product_uuid", "ec2") || strings.Contains(p.dmi["product_version"], "amazon")
}

func onVMware(p platform) bool { return p.has("sys_vendor", "VMware") }

func onOpenStack(p platform) bool {
	return p.has("product_name", "OpenStack") || p.has("sys_vendor", "OpenStack") || p.has("chassis_asset_tag", "OpenTelekomCloud")
}

// How long to wait for an answer: from a cloud that certainly exists, although
// its network may not be up yet, and from clouds that may not exist.
const (
	certainTimeout   = 30 * time.Second
	uncertainTimeout = 10 * time.Second
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("metadata: ")
	dir := flag.String("dir", "/run/config", "write to `DIRECTORY`")
	timeout := flag.Duration("timeout", 0, "give up after `DURATION` without an answer (default 30s for an identified cloud, else 10s)")
	wait := flag.Bool("wait", false, "ask again until a provider answers; do nothing if an earlier run had an answer")
	network := flag.Bool("network", false, "configure network interfaces with the addresses, routes and name servers of the provider")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: metadata [flags] [PROVIDER...]\n\nproviders: %s; file=PATH; aws=v1 for IMDSv1\n"+
			"The default is the provider that the firmware names, or else all of them at once.\n\n", providerNames())
		flag.PrintDefaults()
	}
	flag.Parse()
	chosen, certain, err := choose(flag.Args(), readPlatform("/"))
	if err != nil {
		log.Fatal(err)
	}
	if *timeout == 0 {
		*timeout = uncertainTimeout
		if certain {
			*timeout = certainTimeout
		}
	}
	h := host{
		dir: *dir, variable: "/var", setHostname: unix.Sethostname,
		mount: func(m cloudMount) error { return m.mountIn("/var") },
	}
	if console, err := os.OpenFile("/dev/console", os.O_WRONLY|unix.O_NOCTTY, 0); err == nil {
		h.console = console
	}
	if *network {
		h.configure = func(links []link) error { return configure(links, "/etc/resolv.conf", resolvFragments) }
	}
	once := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		defer cancel()
		return run(ctx, chosen, h)
	}
	if *wait {
		err = untilAnswered(h.dir, once, time.Sleep)
	} else {
		err = once()
	}
	if err != nil {
		logLines(err)
		os.Exit(1)
	}
}

// providerNames returns the names of all providers, for messages.
func providerNames() string {
	var names []string
	for _, p := range providers {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// choose returns the providers with the given names. Without names it returns
// the provider that the platform identifies itself as, or else all of them. A
// kernel argument and data in the image take precedence over any cloud. certain is
// true if there is only one provider to ask.
func choose(names []string, here platform) (chosen []provider, certain bool, err error) {
	if len(names) == 0 {
		if _, ok := here.argument(cmdlineArgument); ok {
			return providers[:1], true, nil
		}
		if here.reserved {
			return providers[1:2], true, nil
		}
		for _, p := range providers {
			if p.here != nil && p.here(here) {
				return []provider{p}, true, nil
			}
		}
		return providers, false, nil
	}
	for _, name := range names {
		switch path, isFile := strings.CutPrefix(name, "file="); {
		case isFile:
			chosen = append(chosen, provider{"file", "FILE", nil, path, fetchFile})
			continue
		case name == "aws=v1":
			chosen = append(chosen, provider{"aws", "AWS", nil, linkLocal, fetchAWSv1})
			continue
		}
		i := slices.IndexFunc(providers, func(p provider) bool { return p.name == name })
		if i < 0 {
			return nil, false, fmt.Errorf("unknown provider %q (providers: %s)", name, providerNames())
		}
		chosen = append(chosen, providers[i])
	}
	return chosen, len(chosen) == 1, nil
}

// A host is what run changes of the machine.
type host struct {
	dir         string // of the results
	variable    string // /var
	setHostname func([]byte) error
	mount       func(cloudMount) error
	configure   func([]link) error // nil: the network stays as it is
	console     io.Writer          // shows what is ignored, in addition to the log; may be nil
}

// reportIgnored reports what has no effect, up to maxIgnored lines.
func (h *host) reportIgnored(lines []string) {
	for i, line := range lines {
		if i == maxIgnored {
			h.report(fmt.Sprintf("%d further keys have no effect", len(lines)-i))
			return
		}
		h.report(line)
	}
}

// report logs a line and shows it on the console.
func (h *host) report(line string) {
	log.Print(line)
	if h.console != nil {
		fmt.Fprintf(h.console, "metadata: %s\n", line)
	}
}

// Files that other programs find in any case, and one that exists if a provider
// has answered.
const (
	keysFile     = "ssh/authorized_keys"
	userDataFile = "userdata"
	providerFile = "provider"
)

// run asks the providers, writes the answers of the first one that has any to the
// host, sets its name, and configures its network. If a step fails, it continues
// with the others. The error is errNoAnswer if no provider answers. Then the
// files that containers bind are empty, and a later run fills them.
func run(ctx context.Context, chosen []provider, h host) error {
	config, err := openConfig(h.dir)
	if err != nil {
		return err
	}
	defer config.close()
	p, found, err := ask(ctx, chosen)
	if err != nil {
		return errors.Join(errNoAnswer, err, config.reserve(keysFile, 0o600), config.reserve(userDataFile, 0o644))
	}

	cloud := &cloudConfig{}
	var cloudErr error
	if isCloudConfig(found.userData) {
		cloud, cloudErr = parseCloudConfig(found.userData)
		found.keys = append(found.keys, cloud.keys...)
		if cloud.hostname != "" {
			found.values["hostname"] = cloud.hostname
		}
		if cloud.ignored != "" {
			found.ignored = append(found.ignored, cloud.ignored)
		}
	}
	h.reportIgnored(found.ignored)
	failed := []error{found.check()}
	if cloudErr != nil {
		for line := range strings.Lines(cloudErr.Error()) {
			h.report(strings.TrimSpace(line))
		}
		failed = append(failed, errCloudConfig)
	}
	write := func(name, contents string, mode os.FileMode) {
		failed = append(failed, config.write(name, []byte(contents), mode))
	}
	for _, name := range slices.Sorted(maps.Keys(found.values)) {
		write(name, found.values[name], 0o644)
	}
	var keys strings.Builder
	for _, key := range found.keys {
		keys.WriteString(key + "\n")
	}
	write(keysFile, keys.String(), 0o600)
	write(userDataFile, string(found.userData), 0o644)
	if len(found.network) > 0 {
		network, err := json.MarshalIndent(found.network, "", "\t")
		failed = append(failed, err)
		write("network.json", string(network)+"\n", 0o644)
	}
	switch {
	case h.configure != nil:
		failed = append(failed, found.networkErr, h.configure(found.network))
	case len(found.network) > 0:
		log.Print("the network configuration is only in network.json: the flag -network applies it")
	}
	log.Printf("%s: %d values, %d ssh keys and %d bytes of user data written to %s",
		p.name, len(found.values), len(found.keys), len(found.userData), h.dir)

	// User data may replace files that were written before, including the host
	// name.
	if isCloudConfig(found.userData) {
		failed = append(failed, cloud.apply(h, config))
	} else {
		failed = append(failed, writeTree(config, found.userData))
	}
	failed = append(failed, setName(config, h.setHostname))
	write(providerFile, p.title, 0o644)
	return errors.Join(failed...)
}

// grace is how long to wait for the answer of a preferred provider after the
// first answer.
const grace = time.Second

// ask returns the answer of the first provider in the list that has one. It looks
// for data in the machine itself first, then asks all services at once, because
// each may need the whole timeout.
func ask(ctx context.Context, chosen []provider) (provider, *instance, error) {
	failed := make([]error, len(chosen))
	var services []int
	for i, p := range chosen {
		if p.remote() {
			services = append(services, i)
			continue
		}
		found, err := p.fetch(ctx, nil, p.source)
		if err == nil {
			return p, found, nil
		}
		failed[i] = fmt.Errorf("%s: %w", p.name, err)
	}
	best := askServices(ctx, chosen, services, failed)
	if best == nil {
		return provider{}, nil, errors.Join(failed...)
	}
	return chosen[best.provider], best.found, nil
}

// answer is what the service of a provider, by its index, has answered.
type answer struct {
	provider int
	found    *instance
	err      error
}

// askServices asks those of the chosen providers whose indexes are in services. It
// returns nil if none has an answer. Errors are added to failed.
func askServices(ctx context.Context, chosen []provider, services []int, failed []error) *answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(services))
	pending := map[int]bool{}
	for _, i := range services {
		pending[i] = true
		go func() {
			c := newClient()
			c.quiet = len(services) > 1
			found, err := chosen[i].fetch(ctx, c, chosen[i].source)
			answers <- answer{i, found, err}
		}()
	}
	var best *answer
	var late <-chan time.Time
	// wait reports whether a pending answer would be preferred.
	wait := func() bool {
		for i := range pending {
			if best == nil || i < best.provider {
				return true
			}
		}
		return false
	}
	for wait() {
		select {
		case a := <-answers:
			delete(pending, a.provider)
			if a.err != nil {
				failed[a.provider] = fmt.Errorf("%s: %w", chosen[a.provider].name, a.err)
				continue
			}
			if best == nil {
				late = time.After(grace)
			}
			if best == nil || a.provider < best.provider {
				best = &a
			}
		case <-late:
			clear(pending)
		}
	}
	return best
}

// writeTree writes the tree in user data, if there is one.
func writeTree(config *config, userData []byte) error {
	nodes, err := parseTree(userData)
	if errors.Is(err, errNoTree) {
		if len(userData) > 0 {
			log.Printf("%v: written only to the file userdata", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("user data: %w (not unpacked)", err)
	}
	for _, n := range nodes {
		if err := config.writeNode(n); err != nil {
			return fmt.Errorf("user data: %w", err)
		}
	}
	log.Printf("user data: %d files and directories unpacked", len(nodes))
	return nil
}

// setName sets the name in the file hostname, if it exists.
func setName(config *config, setHostname func([]byte) error) error {
	contents, err := config.read("hostname")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := strings.TrimSpace(string(contents))
	if err := checkHostname(name); err != nil {
		return err
	}
	if err := setHostname([]byte(name)); err != nil {
		return fmt.Errorf("set the host name to %q: %w (the container needs CAP_SYS_ADMIN)", name, err)
	}
	log.Printf("host name %s", name)
	return nil
}
