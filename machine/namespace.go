package machine

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// namespace is a word that says which namespace a container is in, or the path of one.
type namespace string

func (n *namespace) parse(text string, f *Field) error {
	if !slices.Contains(f.Enum, text) && !path.IsAbs(text) {
		return fmt.Errorf("must be %s or an absolute path%s", strings.Join(f.Enum, ", "), Suggest(text, f.Enum))
	}
	*n = namespace(text)
	return nil
}

// own tells whether a namespace that is that of the machine by default is not.
func (n namespace) own() bool { return n != "" && n != "root" && n != "host" }

func (n *namespace) schema() schemaNode { return schemaNode{} } // the words are those of the field

func (n *namespace) String() string { return string(*n) }

// namespaces gives the namespaces of a container. The mount namespace is always one of its own.
func (c *container) namespaces() []specs.LinuxNamespace {
	var out []specs.LinuxNamespace
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		word namespace
	}{
		{specs.NetworkNamespace, cmp.Or(c.Net.V, "root")},
		{specs.IPCNamespace, cmp.Or(c.Ipc.V, "root")},
		{specs.UTSNamespace, cmp.Or(c.Uts.V, "root")},
		{specs.PIDNamespace, cmp.Or(c.Pid.V, "new")},
		{specs.UserNamespace, cmp.Or(c.Userns.V, "root")},
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
