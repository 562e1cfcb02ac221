package segment

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

// Rules are changes to the tree of an image before it is packed.
type Rules string

// The rules of LinuxKit for the three places that an image can have in a
// machine, and no rules.
const (
	RulesNone      Rules = contract.RulesNone
	RulesInit      Rules = contract.RulesInit
	RulesContainer Rules = contract.RulesContainer
	RulesVolume    Rules = contract.RulesVolume
)

// Contents of the files that replace those of images.
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

// dropped are files that container engines leave in images.
var dropped = map[string]bool{
	".dockerenv": true, "Dockerfile": true, "dev/console": true, "dev/pts": true, "dev/shm": true, "etc/hostname": true,
}

// Apply applies rules to the tree of an image:
//
//   - It removes files that container engines leave in images. If there are files
//     below one of these, it becomes a directory.
//   - etc/hosts and etc/resolv.conf have fixed contents.
//   - etc/mtab is a link to /proc/mounts unless the image has such a file.
//   - The system directories exist, with the attributes that they have in the
//     image, except that dev/pts and dev/shm always have mode 0755 and owner root.
//
// For RulesInit, Apply adds no system directories, because another init image can
// have them with other attributes. An earlier segment must contain them. The
// root has mode 0755 and owner root there, because anyone can write to the one
// that the kernel creates.
func Apply(rules Rules, entries []tree.Entry) ([]tree.Entry, error) {
	fixed := map[string]tree.Entry{
		"etc/hosts":       tree.NewFile("etc/hosts", 0o644, hostsText),
		"etc/resolv.conf": tree.NewSymlink("etc/resolv.conf", resolvTarget),
	}
	missing := map[string]tree.Entry{"etc/mtab": tree.NewSymlink("etc/mtab", mtabTarget)}
	systemDirs := contract.SystemDirectories()
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
		for _, dir := range systemDirs {
			missing[dir] = tree.NewDir(dir)
		}
	}
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
			// If a system directory were a link, entries below it could lead
			// out of the image.
			e = tree.NewDir(e.Path)
		}
		delete(missing, e.Path)
		kept = append(kept, e)
	}
	for _, added := range []map[string]tree.Entry{fixed, missing} {
		for _, e := range added {
			kept = append(kept, e)
		}
	}
	tree.Sort(kept)
	return kept, nil
}

func below(path, dir string) bool {
	return strings.HasPrefix(path, dir+"/")
}
