package machine

import (
	"cmp"
	"errors"
	"path"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// A Namespace says which namespace a container is in: "root" or "host" for that
// of the machine, "new" or "none" for a new one, or the path of an existing
// one. The zero value is the default of the kind of namespace.
type Namespace string

// UnmarshalText checks a path. The words of each namespace are in its schema.
func (n *Namespace) UnmarshalText(text []byte) error {
	if !path.IsAbs(string(text)) {
		return errors.New("must be an absolute path")
	}
	*n = Namespace(text)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Namespace) Syntax() (words string, keywords map[string]any) {
	return "an absolute path", map[string]any{"pattern": "^/"}
}

// String returns the word or the path.
func (n Namespace) String() string { return string(n) }

// separate reports whether a namespace that is that of the machine by default
// is another one.
func (n Namespace) separate() bool { return n != "" && n != "root" && n != "host" }

// namespaces returns the namespaces of a container. The mount namespace is
// always new.
func (c *Container) namespaces() []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		word Namespace
	}{
		{specs.NetworkNamespace, cmp.Or(c.Net, "root")},
		{specs.IPCNamespace, cmp.Or(c.Ipc, "root")},
		{specs.UTSNamespace, cmp.Or(c.Uts, "root")},
		{specs.PIDNamespace, cmp.Or(c.Pid, "new")},
		{specs.UserNamespace, cmp.Or(c.Userns, "root")},
		{specs.MountNamespace, "new"},
	} {
		switch n.word {
		case "root", "host":
		case "new", "none":
			out = append(out, specs.LinuxNamespace{Type: n.kind})
		default:
			out = append(out, specs.LinuxNamespace{Type: n.kind, Path: string(n.word)})
		}
	}
	return out
}
