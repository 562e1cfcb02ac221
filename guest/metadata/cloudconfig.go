package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// A cloudConfig is the part of a #cloud-config that machines follow. The format
// is that of cloud-init:
// https://cloudinit.readthedocs.io/en/latest/reference/modules.html
type cloudConfig struct {
	hostname string
	keys     []string // of root
	users    []user
	files    []cloudFile
	time     []string // lines of chrony.conf
	mounts   []cloudMount
	// ignored names all keys that have no effect, in a line; "": none.
	ignored string
}

// A user can log in to sshd.
type user struct {
	name, comment string
	uid           int
	keys          []string
}

// A cloudFile is a file to write.
type cloudFile struct {
	area    area
	path    string // in the area
	content []byte
	mode    uint32
	append  bool
}

// An area is a directory into which user data can write.
type area int

const (
	configArea   area = iota // /run/config
	variableArea             // /var
)

// Limits of a #cloud-config, besides the budget of its content.
const (
	maxCloudConfig = 256 << 10 // bytes of YAML
	maxUsers       = 64
	firstUID       = 1000
	lastUID        = 60000 // above, distributions and containers have IDs of their own
)

// isCloudConfig reports whether user data is a #cloud-config.
func isCloudConfig(userData []byte) bool {
	line, _, _ := bytes.Cut(userData, []byte("\n"))
	return string(bytes.TrimRight(line, " \t\r")) == "#cloud-config"
}

// errCloudConfig is the error of a run whose #cloud-config has errors. They are
// reported before.
var errCloudConfig = errors.New("#cloud-config: a part of it was not used")

// parseCloudConfig returns what a machine follows of a #cloud-config. The error
// names each key that is refused or invalid; everything else holds despite it.
func parseCloudConfig(text []byte) (*cloudConfig, error) {
	p := &cloudParser{config: &cloudConfig{}, budget: newBudget()}
	if len(text) > maxCloudConfig {
		return p.config, fmt.Errorf("#cloud-config: longer than %d bytes: nothing of it is used", maxCloudConfig)
	}
	document, err := loadDocument(text)
	if err != nil {
		return p.config, fmt.Errorf("#cloud-config: %w: nothing of it is used", err)
	}
	if len(document.Content) == 1 {
		p.mapping("", document.Content[0], map[string]func(*yaml.Node, string){
			"hostname":            p.hostname,
			"ssh_authorized_keys": func(n *yaml.Node, at string) { p.config.keys = append(p.config.keys, p.keys(n, at)...) },
			"users":               p.users,
			"write_files":         p.files,
			"ntp":                 p.ntp,
			"mounts":              p.mounts,
			"bootcmd":             p.command,
			"runcmd":              p.command,
			// These ask for what a machine does anyway.
			"disable_root":      p.off,
			"manage_etc_hosts":  p.off,
			"package_update":    p.off,
			"package_upgrade":   p.off,
			"preserve_hostname": p.off,
			"ssh_pwauth":        p.off,
		})
	}
	if len(p.ignored) > 0 {
		p.config.ignored = "#cloud-config: not supported, ignored: " + strings.Join(p.ignored, ", ")
	}
	return p.config, errors.Join(p.errs...)
}

// loadDocument loads the only document of a YAML text, which may be empty.
func loadDocument(text []byte) (document yaml.Node, err error) {
	loader, err := yaml.NewLoader(bytes.NewReader(text))
	if err != nil {
		return document, err
	}
	if err := loader.Load(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return document, nil
		}
		return document, err
	}
	var other yaml.Node
	if err := loader.Load(&other); !errors.Is(err, io.EOF) {
		return document, errors.Join(errors.New("more than one document"), err)
	}
	return document, nil
}

// A cloudParser collects what it parses in its config, and all errors.
type cloudParser struct {
	config  *cloudConfig
	budget  *budget // an alias repeats a value at no cost in text
	errs    []error
	ignored []string // unsupported keys
}

func (p *cloudParser) fail(n *yaml.Node, at, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("#cloud-config: line %d: %s: %s", n.Line, at, fmt.Sprintf(format, args...)))
}

// maxIgnored is how many keys without effect are reported.
const maxIgnored = 40

func (p *cloudParser) ignore(n *yaml.Node, at string) {
	switch {
	case len(p.ignored) == maxIgnored:
		p.ignored = append(p.ignored, "…")
	case len(p.ignored) < maxIgnored:
		p.ignored = append(p.ignored, fmt.Sprintf("%s (line %d)", at, n.Line))
	}
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// mapping calls the functions of the keys of a mapping, and returns which keys it
// has.
func (p *cloudParser) mapping(at string, n *yaml.Node, keys map[string]func(value *yaml.Node, at string)) map[string]bool {
	has := map[string]bool{}
	n = resolved(n)
	if isNull(n) {
		return has
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, first(at, "the document"), "must be a mapping")
		return has
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		name := key.Value
		if key.Kind != yaml.ScalarNode || !plainKey.MatchString(name) {
			name = strconv.QuoteToASCII(name[:min(len(name), 64)])
		}
		if at != "" {
			name = at + "." + name
		}
		parse := keys[key.Value]
		switch {
		case p.budget.spend(0) != nil: // an alias can repeat a mapping
			p.fail(key, name, "%v", errTooMuch)
			return has
		case has[key.Value]:
			p.fail(key, name, "the key appears twice: the first one is used")
		case parse == nil || key.Kind != yaml.ScalarNode:
			p.ignore(key, name)
		default:
			parse(value, name)
		}
		has[key.Value] = true
	}
	return has
}

// list calls a function for each element of a sequence.
func (p *cloudParser) list(at string, n *yaml.Node, parse func(element *yaml.Node, at string)) {
	if n = resolved(n); isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n, at, "must be a list")
		return
	}
	for i, element := range n.Content {
		if p.budget.spend(0) != nil {
			p.fail(element, at, "%v", errTooMuch)
			return
		}
		parse(resolved(element), fmt.Sprintf("%s[%d]", at, i))
	}
}

// text returns a string. Strings must not have line breaks or other control
// characters, because most of them become lines of a file.
func (p *cloudParser) text(n *yaml.Node, at string) string {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" && n.ShortTag() != "!!int" || strings.ContainsFunc(n.Value, isControl) {
		p.fail(n, at, "must be a string of one line")
		return ""
	}
	if err := p.budget.spend(len(n.Value)); err != nil {
		p.fail(n, at, "%v", err)
		return ""
	}
	return strings.TrimSpace(n.Value)
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

func (p *cloudParser) flag(n *yaml.Node, at string) (value bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" || n.Load(&value) != nil {
		p.fail(n, at, "must be true or false")
	}
	return value
}

// off parses a key for something that machines do not do.
func (p *cloudParser) off(n *yaml.Node, at string) {
	if n.ShortTag() != "!!bool" || p.flag(n, at) {
		p.ignore(n, at)
	}
}

func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (p *cloudParser) command(n *yaml.Node, at string) {
	p.fail(n, at, "refused: machines run no commands of user data; put them into a container of the machine")
}

func (p *cloudParser) hostname(n *yaml.Node, at string) {
	name := p.text(n, at)
	if name == "" {
		return
	}
	if err := checkHostname(name); err != nil {
		p.fail(n, at, "%v", err)
		return
	}
	p.config.hostname = name
}

// keys parses lines of authorized_keys.
func (p *cloudParser) keys(n *yaml.Node, at string) (keys []string) {
	p.list(at, n, func(n *yaml.Node, at string) {
		if key := p.text(n, at); key != "" {
			keys = append(keys, key)
		}
	})
	return keys
}

// userName is a name that every program accepts.
var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

// users parses the users of sshd. In cloud-init, default is the user of the
// distribution, who gets the keys of the cloud; here that is root.
func (p *cloudParser) users(n *yaml.Node, at string) {
	p.list(at, n, func(n *yaml.Node, at string) {
		var u user
		if n.Kind == yaml.ScalarNode {
			if u.name = p.text(n, at); u.name == "default" {
				return
			}
		} else {
			text := func(to *string) func(*yaml.Node, string) {
				return func(n *yaml.Node, at string) { *to = p.text(n, at) }
			}
			uid := ""
			p.mapping(at, n, map[string]func(*yaml.Node, string){
				"name":                text(&u.name),
				"gecos":               text(&u.comment),
				"uid":                 text(&uid),
				"ssh_authorized_keys": func(n *yaml.Node, at string) { u.keys = p.keys(n, at) },
				"lock_passwd": func(n *yaml.Node, at string) {
					if !p.flag(n, at) {
						p.ignore(n, at)
					}
				},
				"shell": func(n *yaml.Node, at string) {
					if p.text(n, at) != "/bin/sh" {
						p.ignore(n, at)
					}
				},
			})
			if uid != "" {
				var err error
				if u.uid, err = strconv.Atoi(uid); err != nil || u.uid < firstUID || u.uid > lastUID {
					p.fail(n, at+".uid", "must be %d to %d", firstUID, lastUID)
					return
				}
			}
		}
		p.addUser(n, at, u)
	})
}

func (p *cloudParser) addUser(n *yaml.Node, at string, u user) {
	same := func(other user) bool { return other.name == u.name || u.uid != 0 && other.uid == u.uid }
	switch {
	case u.name == "root" && u.uid == 0:
		p.config.keys = append(p.config.keys, u.keys...)
		return
	case !userName.MatchString(u.name) || slices.Contains([]string{"root", "sshd", "nobody", "default"}, u.name):
		p.fail(n, at, "name %q: must have at most 32 small letters, digits, hyphens and underscores, start with a letter, and not be taken", u.name)
		return
	case strings.Contains(u.comment, ":"):
		p.fail(n, at, "gecos must not contain a colon")
		return
	case slices.ContainsFunc(p.config.users, same):
		p.fail(n, at, "user %s: the name or the uid is taken", u.name)
		return
	case len(p.config.users) == maxUsers:
		p.fail(n, at, "more than %d users", maxUsers)
		return
	}
	p.config.users = append(p.config.users, u)
}

// number gives users without a uid the lowest free one.
func (c *cloudConfig) number() {
	taken := map[int]bool{}
	for _, u := range c.users {
		taken[u.uid] = true
	}
	next := firstUID
	for i := range c.users {
		if c.users[i].uid != 0 {
			continue
		}
		for taken[next] {
			next++
		}
		c.users[i].uid, taken[next] = next, true
	}
}

// files parses write_files.
func (p *cloudParser) files(n *yaml.Node, at string) {
	p.list(at, n, func(n *yaml.Node, at string) {
		f, ok := cloudFile{mode: 0o644}, true
		var content, encoding string
		refuse := func(n *yaml.Node, at, format string, args ...any) {
			ok = false
			p.fail(n, at, format, args...)
		}
		has := p.mapping(at, n, map[string]func(*yaml.Node, string){
			"path": func(n *yaml.Node, at string) {
				var err error
				if f.area, f.path, err = areaOf(p.text(n, at)); err != nil {
					refuse(n, at, "%v", err)
				}
			},
			"content": func(n *yaml.Node, at string) {
				if n.Kind != yaml.ScalarNode || n.Load(&content) != nil {
					refuse(n, at, "must be a string")
				}
			},
			"encoding": func(n *yaml.Node, at string) { encoding = p.text(n, at) },
			"permissions": func(n *yaml.Node, at string) {
				mode, err := strconv.ParseUint(strings.TrimPrefix(p.text(n, at), "0o"), 8, 32)
				if err != nil || mode > 0o777 {
					refuse(n, at, "%q: must be an octal mode up to 0777", n.Value)
				}
				f.mode = uint32(mode)
			},
			"owner": func(n *yaml.Node, at string) {
				if owner := p.text(n, at); owner != "root" && owner != "root:root" {
					refuse(n, at, "must be root:root")
				}
			},
			"append": func(n *yaml.Node, at string) { f.append = p.flag(n, at) },
			"defer":  func(n *yaml.Node, at string) { p.flag(n, at) }, // files are written last anyway
			"source": func(n *yaml.Node, at string) { refuse(n, at, "not supported: the file is not written") },
		})
		if !has["path"] {
			refuse(n, at, "path is missing")
		}
		var err error
		if f.content, err = decodeContent(content, encoding); err == nil {
			err = p.budget.spend(len(f.content))
		}
		if err != nil {
			refuse(n, at, "%v", err)
		}
		if ok {
			p.config.files = append(p.config.files, f)
		}
	})
}

// areaOf returns the directory into which a file may be written, and its path
// there.
func areaOf(name string) (area, string, error) {
	clean := path.Clean(name)
	if strings.HasPrefix(name, "/") {
		for _, place := range []struct {
			prefix string
			area   area
		}{
			{"/run/config/", configArea},
			{"/var/config/", configArea}, // links
			{"/var/run/config/", configArea},
			{"/var/", variableArea},
		} {
			rest, ok := strings.CutPrefix(clean, place.prefix)
			if ok && rest != partial && !strings.HasSuffix(rest, "/"+partial) && !strings.HasSuffix(name, "/") {
				return place.area, rest, nil
			}
		}
	}
	return 0, "", fmt.Errorf("%q: must be a file below /run/config or /var, because everything else is read-only", name)
}

// decodeContent decodes the content of a file. Spaces around an encoding have no
// effect.
func decodeContent(text, encoding string) ([]byte, error) {
	content := []byte(text)
	switch strings.ToLower(encoding) {
	case "", "text/plain":
		return content, nil
	case "b64", "base64":
		return decodeBase64(text)
	case "gz", "gzip":
	case "gz+b64", "gz+base64", "gzip+b64", "gzip+base64":
		var err error
		if content, err = decodeBase64(text); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("unknown encoding %q", encoding)
	}
	return gunzip(content)
}

// gunzip unpacks a value of at most maxBody bytes.
func gunzip(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	value, err := io.ReadAll(io.LimitReader(z, maxBody+1))
	if len(value) > maxBody {
		return nil, errTooLong
	}
	return value, err
}

// ntp parses time sources. The program that sets the clock is part of the
// machine.
func (p *cloudParser) ntp(n *yaml.Node, at string) {
	var lines []string
	enabled := true
	sources := func(kind string) func(*yaml.Node, string) {
		return func(n *yaml.Node, at string) {
			p.list(at, n, func(n *yaml.Node, at string) {
				name := p.text(n, at)
				if _, err := netip.ParseAddr(name); err != nil && (name == "" || len(name) > 253 || !checkLabels(name, "-")) {
					p.fail(n, at, "%q: must be a host name or an IP address", name)
					return
				}
				lines = append(lines, kind+" "+name+" iburst")
			})
		}
	}
	p.mapping(at, n, map[string]func(*yaml.Node, string){
		"enabled": func(n *yaml.Node, at string) { enabled = p.flag(n, at) },
		"servers": sources("server"),
		"pools":   sources("pool"),
		"ntp_client": func(n *yaml.Node, at string) {
			if client := p.text(n, at); client != "chrony" && client != "auto" {
				p.ignore(n, at)
			}
		},
	})
	if enabled {
		p.config.time = lines
	}
}
