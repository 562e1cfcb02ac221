// Command metadata asks the cloud about this machine and leaves the answers as files in /run/config, where services find them (LinuxKit's
// contract: pkg/metadata). It runs once, as an onboot container after the DHCP client.
//
// Written are: provider, hostname, userdata and what the provider knows besides (instance_id, local_ipv4, …), one value a file without a
// newline; ssh/authorized_keys, one key a line; and the tree that user data may hold. Then the host name is set. What a provider
// lacks is left out, but for userdata and ssh/authorized_keys: these are always there, if need be empty, so that they can be bound
// into containers. With -network, the interfaces of the machine are given the addresses in network.json.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A provider is one cloud's metadata service, or another place where a machine finds its data.
type provider struct {
	name  string // on the command line
	title string // in the file "provider", as LinuxKit spells it
	// here tells whether the machine itself says that it runs there; nil if it never does.
	here func(platform) bool
	// source is the address of a service, or where the rest is looked for: fetch's last parameter.
	source string
	fetch  func(ctx context.Context, c *client, source string) (*instance, error)
}

func (p provider) remote() bool { return strings.Contains(p.source, "://") }

// linkLocal is where most clouds have their service.
const linkLocal = "http://169.254.169.254"

// providers are in the order of preference: of several that answer, the first is believed. OpenStack's service is last among those of the same
// address, for others imitate it.
var providers = []provider{
	{"cmdline", "CMDLINE", nil, "/", fetchCmdline},
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

// onAWS: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/identify_ec2_instances.html; the older machines are Xen's.
func onAWS(p platform) bool {
	return p.has("sys_vendor", "Amazon EC2") || p.has("product_uuid", "ec2") || strings.Contains(p.dmi["product_version"], "amazon")
}

func onVMware(p platform) bool { return p.has("sys_vendor", "VMware") }

func onOpenStack(p platform) bool {
	return p.has("product_name", "OpenStack") || p.has("sys_vendor", "OpenStack") || p.has("chassis_asset_tag", "OpenTelekomCloud")
}

// How long an answer is waited for: of a cloud that is known to be there, whose network may still be coming up, and of clouds that may not.
const (
	certainTimeout   = 30 * time.Second
	uncertainTimeout = 10 * time.Second
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("metadata: ")
	dir := flag.String("dir", "/run/config", "write to `DIRECTORY`")
	timeout := flag.Duration("timeout", 0, "give up after `DURATION` without an answer (default 30s of a cloud that is certain, else 10s)")
	network := flag.Bool("network", false, "give the network interfaces the addresses, routes and name servers that the provider has for them")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: metadata [flags] [PROVIDER...]\n\nknown providers: %s; file=PATH; aws=v1 for IMDSv1\n"+
			"By default the machine's firmware names the provider. If it does not, all are asked at once.\n\n", known())
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
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	configureNetwork := func(links []link) error { return configure(links, "/etc/resolv.conf") }
	if !*network {
		configureNetwork = nil
	}
	if err := run(ctx, chosen, *dir, unix.Sethostname, configureNetwork); err != nil {
		for line := range strings.Lines(err.Error()) {
			log.Print(strings.TrimSpace(line))
		}
		os.Exit(1)
	}
}

func known() string {
	var names []string
	for _, p := range providers {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

// choose gives the providers with these names. Without names it gives the one that the machine says it runs on, or else all of them; what was put
// into the machine itself, a kernel argument, is preferred to any cloud. It is certain when nobody is asked in vain.
func choose(names []string, here platform) (chosen []provider, certain bool, err error) {
	if len(names) == 0 {
		if _, ok := here.argument(cmdlineArgument); ok {
			return providers[:1], true, nil
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
			return nil, false, fmt.Errorf("unknown provider %q; known are: %s", name, known())
		}
		chosen = append(chosen, providers[i])
	}
	return chosen, len(chosen) == 1, nil
}

// run asks the providers, writes the answers of the best one that gives any to dir, sets the host name, and configures the network unless
// configure is nil. An error does not stop what can be done without the failed part.
func run(ctx context.Context, chosen []provider, dir string, setHostname func([]byte) error, configure func([]link) error) error {
	p, found, err := ask(ctx, chosen)
	if err != nil {
		return err
	}
	config, err := openConfig(dir)
	if err != nil {
		return err
	}
	defer config.close()

	var failed []error
	write := func(name, contents string, mode os.FileMode) {
		failed = append(failed, config.write(name, []byte(contents), mode))
	}
	write("provider", p.title, 0o644)
	for _, name := range slices.Sorted(maps.Keys(found.values)) {
		write(name, found.values[name], 0o644)
	}
	var keys strings.Builder
	for _, key := range found.keys {
		keys.WriteString(key + "\n")
	}
	write("ssh/authorized_keys", keys.String(), 0o600)
	write("userdata", string(found.userData), 0o644)
	if len(found.network) > 0 {
		network, err := json.MarshalIndent(found.network, "", "\t")
		failed = append(failed, err)
		write("network.json", string(network)+"\n", 0o644)
	}
	if configure != nil {
		failed = append(failed, found.networkErr, configure(found.network))
	}
	log.Printf("%s: %d values, %d ssh keys and %d bytes of user data written to %s",
		p.name, len(found.values), len(found.keys), len(found.userData), dir)

	// The tree may replace what was written before, the host name too.
	failed = append(failed, writeTree(config, found.userData), setName(config, setHostname))
	return errors.Join(failed...)
}

// grace is how long an answer waits for one of a provider that is preferred.
const grace = time.Second

// ask gives the answer of the provider that comes first in the list among those that have one. What is in the machine is looked through first, one
// place after another; then the services are asked all at once, since each may take its whole time to be silent.
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

	type answer struct {
		i     int
		found *instance
		err   error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan answer, len(services))
	for _, i := range services {
		go func() {
			c := newClient()
			c.quiet = len(services) > 1
			found, err := chosen[i].fetch(ctx, c, chosen[i].source)
			answers <- answer{i, found, err}
		}()
	}
	open := map[int]bool{}
	for _, i := range services {
		open[i] = true
	}
	var best *answer
	var late <-chan time.Time
	// better tells whether an answer that is still to come would be preferred.
	better := func() bool {
		for i := range open {
			if best == nil || i < best.i {
				return true
			}
		}
		return false
	}
	for better() {
		select {
		case a := <-answers:
			delete(open, a.i)
			if a.err != nil {
				failed[a.i] = fmt.Errorf("%s: %w", chosen[a.i].name, a.err)
				continue
			}
			if best == nil {
				late = time.After(grace)
			}
			if best == nil || a.i < best.i {
				best = &a
			}
		case <-late:
			clear(open)
		}
	}
	if best != nil {
		return chosen[best.i], best.found, nil
	}
	return provider{}, nil, errors.Join(failed...)
}

func writeTree(config *config, userData []byte) error {
	nodes, err := parseTree(userData)
	if errors.Is(err, errNoTree) {
		if len(userData) > 0 {
			log.Printf("%v; it is only in the file userdata", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("user data: %w; nothing of it was unpacked", err)
	}
	for _, n := range nodes {
		if err := config.writeNode(n); err != nil {
			return fmt.Errorf("user data: %w", err)
		}
	}
	log.Printf("user data: %d files and directories unpacked", len(nodes))
	return nil
}

// setName gives the machine the name in the file hostname, if there is one.
func setName(config *config, setHostname func([]byte) error) error {
	contents, err := config.read("hostname")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := strings.TrimSpace(string(contents))
	if err := setHostname([]byte(name)); err != nil {
		return fmt.Errorf("set the host name to %q: %w (at most 64 bytes, and the container needs CAP_SYS_ADMIN)", name, err)
	}
	log.Printf("host name %s", name)
	return nil
}
