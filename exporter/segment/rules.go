package segment

import (
	"fmt"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
)

// Rules names what is done to the tree of an image before it is packed.
type Rules string

// The rules of LinuxKit for the three places that an image can have in a
// machine, and none.
const (
	RulesNone      Rules = "none"      // as it is
	RulesInit      Rules = "init"      // at the root, with other images below and above it
	RulesContainer Rules = "container" // root filesystem of an onboot, onshutdown or service container
	RulesVolume    Rules = "volume"    // content of a volume
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

// Apply gives entries the form that the rules want: dropped files are gone
// (what lies below a dropped directory stays), etc/hosts and etc/resolv.conf
// have fixed content, etc/mtab leads to /proc/mounts unless the image has one,
// and the directories that every root filesystem needs are there.
//
// For RulesInit, the root itself is 0755 root, since the kernel makes it
// writable to all. There dev, etc, proc and sys are not added where they are missing:
// this would take back the attributes that another init image gave them. They
// must come with an earlier segment.
func Apply(rules Rules, entries []tree.Entry) ([]tree.Entry, error) {
	resolv := tree.NewSymlink("etc/resolv.conf", resolvTarget)
	switch rules {
	case RulesNone:
		return entries, nil
	case RulesInit, RulesVolume:
	case RulesContainer:
		resolv = tree.NewFile("etc/resolv.conf", 0o644, resolvText)
	default:
		return nil, fmt.Errorf("unknown rules %q: use init, container, volume or none", rules)
	}

	fixed := map[string]tree.Entry{
		"dev/pts":         tree.NewDir("dev/pts"),
		"dev/shm":         tree.NewDir("dev/shm"),
		"etc/hosts":       tree.NewFile("etc/hosts", 0o644, hostsText),
		"etc/resolv.conf": resolv,
	}
	missing := map[string]tree.Entry{"etc/mtab": tree.NewSymlink("etc/mtab", mtabTarget)}
	for _, dir := range []string{"dev", "etc", "proc", "sys"} {
		missing[dir] = tree.NewDir(dir)
	}
	parents := map[string]bool{}
	for _, e := range entries {
		if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
			parents[e.Path[:i]] = true
		}
	}

	var kept []tree.Entry
	for _, e := range entries {
		dir, needed := missing[e.Path]
		switch {
		case hasEntry(fixed, e.Path) || below(e.Path, "etc/hosts") || below(e.Path, "etc/resolv.conf"):
			continue
		case dropped[e.Path] && parents[e.Path]:
			e = tree.NewDir(e.Path)
		case dropped[e.Path]:
			continue
		case needed && dir.Type == tree.Dir && e.Type != tree.Dir:
			// A link here would lead what is below it out of the image.
			e = dir
		}
		delete(missing, e.Path)
		kept = append(kept, e)
	}
	for _, e := range fixed {
		kept = append(kept, e)
	}
	if rules == RulesInit {
		kept = append(kept, tree.NewDir("."))
	}
	for _, e := range missing {
		if e.Type == tree.Dir && rules == RulesInit {
			continue
		}
		kept = append(kept, e)
	}
	tree.Sort(kept)
	return kept, nil
}

func hasEntry(m map[string]tree.Entry, path string) bool {
	_, ok := m[path]
	return ok
}

func below(path, dir string) bool {
	return strings.HasPrefix(path, dir+"/")
}
