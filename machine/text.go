package machine

import (
	"errors"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// textual is a value with a grammar of its own, written as one scalar. Errors of parse are predicates, as in
// "must be …", with a suggestion behind a semicolon where there is one.
type textual interface {
	parse(text string, f *Field) error
	schema() schemaNode // what JSON Schema can say of it, besides that it is text
	fmt.Stringer
}

// numeral is a textual value that YAML may take for a number.
type numeral interface {
	textual
	portable(number bool) bool // whether LinuxKit reads it too when it is, or is not, written as a number
}

// containerName is the name of a container: part of a path, and an id in runc and containerd.
type containerName string

var containerNames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)

func (n *containerName) parse(text string, _ *Field) error {
	if !containerNames.MatchString(text) || len(text) > 72 {
		return errors.New(`must be at most 72 letters, digits, "_", "." and "-", and begin with a letter or digit`)
	}
	*n = containerName(text)
	return nil
}

func (n *containerName) schema() schemaNode {
	return schemaNode{"pattern": containerNames.String(), "maxLength": 72}
}

func (n *containerName) String() string { return string(*n) }

// volumeName is the name of a volume.
type volumeName string

var volumeNames = regexp.MustCompile(`^[a-z0-9_-]+$`)

func (n *volumeName) parse(text string, _ *Field) error {
	if !volumeNames.MatchString(text) {
		return errors.New(`must be of small letters, digits, "_" and "-"`)
	}
	*n = volumeName(text)
	return nil
}

func (n *volumeName) schema() schemaNode { return schemaNode{"pattern": volumeNames.String()} }

func (n *volumeName) String() string { return string(*n) }

// filePath is the clean path of a file in the machine, without the leading slash.
type filePath struct{ text, clean string }

func (p *filePath) parse(text string, _ *Field) error {
	p.text, p.clean = text, strings.TrimPrefix(path.Clean("/"+text), "/")
	switch {
	case slices.Contains(strings.Split(text, "/"), ".."):
		return errors.New(`must not contain ".."`)
	case strings.ContainsRune(text, 0):
		return errors.New("must not contain a NUL character")
	case p.clean == "":
		return errors.New("must name something below the root directory")
	}
	return nil
}

func (p *filePath) schema() schemaNode { return schemaNode{"minLength": 1} }

func (p *filePath) String() string { return p.text }

// capability is the name of a capability, or all or none in small letters.
type capability string

const (
	allCapabilities capability = "all"
	noCapabilities  capability = "none"
)

// capabilities are those that "all" stands for, in the order of their numbers (capabilities(7)).
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
	"CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
	"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
	"CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

func (c *capability) parse(text string, _ *Field) error {
	switch {
	case slices.Contains(capabilities, text):
		*c = capability(text)
	case strings.EqualFold(text, string(allCapabilities)), strings.EqualFold(text, string(noCapabilities)):
		*c = capability(strings.ToLower(text))
	default:
		meant := nearest(strings.TrimPrefix(strings.ToUpper(text), capPrefix), capabilityWords())
		if meant != "" {
			meant = capPrefix + meant
		}
		return fmt.Errorf("is not a capability%s", didYouMean(meant))
	}
	return nil
}

const capPrefix = "CAP_"

// capabilityWords are the names of capabilities without what all of them begin with.
func capabilityWords() []string {
	var words []string
	for _, c := range capabilities {
		words = append(words, strings.TrimPrefix(c, capPrefix))
	}
	return words
}

func (c *capability) schema() schemaNode {
	return schemaNode{"enum": slices.Concat(capabilities, []string{"all", "ALL", "none", "NONE"})}
}

func (c *capability) String() string { return string(*c) }

// bind is a bind mount of a container.
type bind struct {
	text, source, destination string
	options                   []string
}

func (b *bind) parse(text string, _ *Field) error {
	parts := strings.Split(text, ":")
	if len(parts) < 2 || len(parts) > 3 || parts[0] == "" || parts[1] == "" {
		return errors.New("must be SOURCE:DESTINATION[:OPTIONS]")
	}
	b.text, b.source, b.destination = text, parts[0], parts[1]
	b.options = []string{"rw", "rbind", "rshared"}
	if len(parts) == 3 {
		b.options = append(strings.Split(parts[2], ","), "rbind")
	}
	return nil
}

func (b *bind) schema() schemaNode { return schemaNode{"pattern": "^[^:]+:[^:]+(:[^:]*)?$"} }

func (b *bind) String() string { return b.text }

// tmpfs is a temporary filesystem of a container.
type tmpfs struct {
	text, destination string
	options           []string
}

func (t *tmpfs) parse(text string, _ *Field) error {
	destination, options, found := strings.Cut(text, ":")
	if destination == "" || strings.Contains(options, ":") {
		return errors.New("must be DESTINATION[:OPTIONS]")
	}
	t.text, t.destination = text, destination
	if found {
		t.options = strings.Split(options, ",")
	}
	return nil
}

func (t *tmpfs) schema() schemaNode { return schemaNode{"pattern": "^[^:]+(:[^:]*)?$"} }

func (t *tmpfs) String() string { return t.text }

// rlimit is a resource limit of a process.
type rlimit struct {
	text  string
	limit specs.POSIXRlimit
}

// rlimits are the names of getrlimit(2).
var rlimits = []string{"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}

func (r *rlimit) parse(text string, _ *Field) error {
	parts := strings.Split(text, ",")
	if len(parts) != 3 {
		return errors.New("must be NAME,SOFT,HARD")
	}
	name := strings.ToLower(strings.TrimSpace(parts[0]))
	name = strings.TrimPrefix(name, "rlimit_")
	if !slices.Contains(rlimits, name) {
		return fmt.Errorf("names no limit of getrlimit(2)%s", suggest(name, rlimits))
	}
	soft, err1 := limit(parts[1])
	hard, err2 := limit(parts[2])
	switch {
	case err1 != nil || err2 != nil:
		return errors.New("must be NAME,SOFT,HARD, where SOFT and HARD are whole numbers or unlimited")
	case soft > hard:
		return errors.New("has a soft limit above the hard one")
	}
	r.text, r.limit = text, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(name), Soft: soft, Hard: hard}
	return nil
}

func (r *rlimit) schema() schemaNode { return schemaNode{"pattern": "^[^,]+,[^,]+,[^,]+$"} }

func (r *rlimit) String() string { return r.text }

func limit(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if strings.EqualFold(text, "unlimited") {
		return math.MaxUint64, nil
	}
	return strconv.ParseUint(text, 10, 64)
}

var numbers = regexp.MustCompile(`^-?[0-9]+$`)

// id is a user or group: a number, or else the name of a container.
type id struct {
	number uint32
	name   string
}

func (i *id) parse(text string, _ *Field) error {
	if text == "" || text == "root" {
		*i = id{}
		return nil
	}
	if !numbers.MatchString(text) {
		*i = id{name: text}
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || len(text) > 1 && text[0] == '0' {
		return fmt.Errorf("must be from 0 to %d, without leading zeros", uint32(math.MaxUint32))
	}
	*i = id{number: uint32(n)}
	return nil
}

func (i *id) schema() schemaNode {
	return schemaNode{"type": []string{"integer", "string"}, "minimum": 0, "maximum": uint32(math.MaxUint32)}
}

func (i *id) portable(number bool) bool { return number || i.name != "" || i.number == 0 }

func (i *id) String() string {
	if i.name != "" {
		return i.name
	}
	return strconv.FormatUint(uint64(i.number), 10)
}

// mode are the permissions of a file or device node.
type mode uint32

func (m *mode) parse(text string, _ *Field) error {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || n > 0o7777 {
		return errors.New(`must be octal digits up to 7777, such as "0644"`)
	}
	*m = mode(n)
	return nil
}

func (m *mode) schema() schemaNode {
	return schemaNode{"type": []string{"string", "integer"}, "pattern": "^(0o)?0*[0-7]{0,4}$"}
}

func (m *mode) portable(number bool) bool { return !number }

func (m *mode) String() string { return fmt.Sprintf("%04o", uint32(*m)) }

// namespace is a word that says which namespace a container is in, or the path of one.
type namespace string

func (n *namespace) parse(text string, f *Field) error {
	if !slices.Contains(f.Enum, text) && !path.IsAbs(text) {
		return fmt.Errorf("must be %s or an absolute path%s", strings.Join(f.Enum, ", "), suggest(text, f.Enum))
	}
	*n = namespace(text)
	return nil
}

func (n *namespace) schema() schemaNode { return schemaNode{} } // the words are those of the field

func (n *namespace) String() string { return string(*n) }

// platform is a platform of an image.
type platform string

var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$`)

func (p *platform) parse(text string, _ *Field) error {
	if !platforms.MatchString(text) {
		return errors.New("must be OS/ARCH[/VARIANT], such as linux/amd64")
	}
	*p = platform(text)
	return nil
}

func (p *platform) schema() schemaNode { return schemaNode{"pattern": platforms.String()} }

func (p *platform) String() string { return string(*p) }
