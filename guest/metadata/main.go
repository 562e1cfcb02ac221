// Command metadata asks the cloud about this machine and leaves the answers as files in /run/config, where services find them (LinuxKit's
// contract: pkg/metadata). It runs once, as an onboot container after the DHCP client.
//
// Written are: provider, hostname, userdata and what the provider knows besides (instance_id, local_ipv4, …), one value a file without a
// newline; ssh/authorized_keys, one key a line; and the tree that user data may hold. Then the host name is set. What a provider
// lacks is logged and left out, but for userdata and ssh/authorized_keys: these are always there, if need be empty, so that they can be bound
// into containers.
package main

import (
	"context"
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

// A provider is one cloud's metadata service.
type provider struct {
	name  string // on the command line
	title string // in the file "provider", as LinuxKit spells it
	fetch func(context.Context, *client) (*instance, error)
}

// providers are asked in this order when the command line names none.
var providers = []provider{
	{"aws", "AWS", fetchAWS},
}

// instance is what a provider says about this machine.
type instance struct {
	values   map[string]string // by file name
	keys     []string          // ssh public keys, in authorized_keys form
	userData []byte
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("metadata: ")
	dir := flag.String("dir", "/run/config", "write to `DIRECTORY`")
	timeout := flag.Duration("timeout", 30*time.Second, "give up after `DURATION` without an answer")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: metadata [flags] [PROVIDER...]\n\nknown providers: %s\n\n", known())
		flag.PrintDefaults()
	}
	flag.Parse()
	chosen, err := choose(flag.Args())
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	if err := run(ctx, chosen, *dir, unix.Sethostname); err != nil {
		for line := range strings.Lines(err.Error()) {
			log.Print(line)
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

// choose gives the providers with these names, or all of them if there are no names.
func choose(names []string) ([]provider, error) {
	if len(names) == 0 {
		return providers, nil
	}
	var chosen []provider
	for _, name := range names {
		i := slices.IndexFunc(providers, func(p provider) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("unknown provider %q; known are: %s", name, known())
		}
		chosen = append(chosen, providers[i])
	}
	return chosen, nil
}

// run asks the providers in turn, writes the answers of the first one that gives any to dir, and sets the host name. An error does not stop
// what can be done without the failed part.
func run(ctx context.Context, chosen []provider, dir string, setHostname func([]byte) error) error {
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
	log.Printf("%s: %d values, %d ssh keys and %d bytes of user data written to %s",
		p.name, len(found.values), len(found.keys), len(found.userData), dir)

	// The tree may replace what was written before, the host name too.
	failed = append(failed, writeTree(config, found.userData), setName(config, setHostname))
	return errors.Join(failed...)
}

func ask(ctx context.Context, chosen []provider) (provider, *instance, error) {
	var failed []error
	for _, p := range chosen {
		found, err := p.fetch(ctx, newClient())
		if err == nil {
			return p, found, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", p.name, err))
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
