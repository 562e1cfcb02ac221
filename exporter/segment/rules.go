package segment

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// Rules names what is done to the tree of an image before it is packed.
type Rules string

// The rules of LinuxKit for the three places that an image can have in a
// machine, and none.
const (
	RulesNone      Rules = contract.RulesNone
	RulesInit      Rules = contract.RulesInit
	RulesContainer Rules = contract.RulesContainer
	RulesVolume    Rules = contract.RulesVolume
)

// What the replaced files hold.
const (
	hostsText = "127.0.0.1       localhost\n" +
		"::1     localhost ip6-localhost ip6-loopback\n" +
		"fe00::0 ip6-localnet\n" +
		"ff00::0 ip6-mcastprefix\n" +
		"ff02::1 ip6-allnodes\n" +
		"ff02::2 ip6-allrouters\n"
	resolvText   = "\n# no resolv.conf configured\n"
	resolvTarget = "/run/resolvconf/resolv.conf"
	mtabTarget   = "/proc/mounts"
)

// dropped are the traces that container engines leave in images.
var dropped = map[string]bool{
	".dockerenv": true, "Dockerfile": true, "dev/console": true, "dev/pts": true, "dev/shm": true, "etc/hostname": true,
}

// Apply gives entries the form that the rules want. Dropped files are gone, but
// what lies below a dropped directory stays. etc/hosts and etc/resolv.conf have
// fixed content; etc/mtab leads to /proc/mounts unless the image has one. The
// system directories are there, with the attributes of the image if it has
// them, except that dev/pts and dev/shm are always 0755 root.
//
// For RulesInit, system directories are not added: another init image may have
// them with other attributes. They must come with an earlier segment. The root
// is 0755 root there, since the kernel makes it writable to all.
func Apply(rules Rules, entries []tree.Entry) ([]tree.Entry, error) {
	added := map[string]tree.Entry{"etc/mtab": tree.NewSymlink("etc/mtab", mtabTarget)}
	fixed := map[string]tree.Entry{
		"etc/hosts":       tree.NewFile("etc/hosts", 0o644, hostsText),
		"etc/resolv.conf": tree.NewSymlink("etc/resolv.conf", resolvTarget),
	}
	switch rules {
	case RulesNone:
		return entries, nil
	case RulesInit:
		fixed["."] = tree.NewDir(".")
	case RulesContainer:
		fixed["etc/resolv.conf"] = tree.NewFile("etc/resolv.conf", 0o644, resolvText)
	case RulesVolume:
	default:
		return nil, fmt.Errorf("unknown rules %q: use init, container, volume or none", rules)
	}
	if rules != RulesInit {
		for _, dir := range contract.SystemDirectories() {
			added[dir] = tree.NewDir(dir)
		}
	}
	systemDirs := contract.SystemDirectories()
	parents := map[string]bool{}
	for _, e := range entries {
		parents[path.Dir(e.Path)] = true
	}

	var kept []tree.Entry
	for _, e := range entries {
		_, replaced := fixed[e.Path]
		switch {
		case replaced || below(e.Path, "etc/hosts") || below(e.Path, "etc/resolv.conf"):
			continue
		case dropped[e.Path] && !parents[e.Path]:
			continue
		case dropped[e.Path], slices.Contains(systemDirs, e.Path) && e.Type != tree.Dir:
			// A link in the place of a system directory would lead what
			// is added below it out of the image.
			e = tree.NewDir(e.Path)
		}
		delete(added, e.Path)
		kept = append(kept, e)
	}
	for _, more := range []map[string]tree.Entry{fixed, added} {
		for _, e := range more {
			kept = append(kept, e)
		}
	}
	tree.Sort(kept)
	return kept, nil
}

func below(path, dir string) bool {
	return strings.HasPrefix(path, dir+"/")
}
