package machine

import (
	"fmt"
	"math"
	"regexp"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/slipway-build/slipway/internal/schema"
)

// An ID is a user or a group: a number, or the name of a container, which
// stands for a number that is assigned to it.
type ID struct {
	Number uint32
	Name   string // empty: Number
}

var numbers = regexp.MustCompile(`^-?[0-9]+$`)

// UnmarshalText parses a number or a name. "root" is 0.
func (i *ID) UnmarshalText(b []byte) error {
	text := string(b)
	if text == "" || text == "root" {
		*i = ID{}
		return nil
	}
	if !numbers.MatchString(text) {
		*i = ID{Name: text}
		return nil
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || len(text) > 1 && text[0] == '0' {
		return fmt.Errorf("must be from 0 to %d, without leading zeros", uint32(math.MaxUint32))
	}
	*i = ID{Number: uint32(n)}
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (ID) Syntax() (words string, keywords map[string]any) {
	return "a number or the name of a container",
		map[string]any{"type": []string{"integer", "string"}, "minimum": 0, "maximum": uint32(math.MaxUint32)}
}

// Portable reports whether LinuxKit accepts the id if it is, or is not, written
// as a number.
func (i ID) Portable(number bool) bool { return number || i.Name != "" || i.Number == 0 }

// String returns the name or the number.
func (i ID) String() string {
	if i.Name != "" {
		return i.Name
	}
	return strconv.FormatUint(uint64(i.Number), 10)
}

// MarshalYAML returns a string or a number.
func (i ID) MarshalYAML() (any, error) {
	if i.Name != "" {
		return i.Name, nil
	}
	return i.Number, nil
}

// firstID is the number of the first container name.
const firstID = 100

// number returns the number of an id, and reports whether it has one.
func (m *Machine) number(i ID) (uint32, bool) {
	if i.Name == "" {
		return i.Number, true
	}
	n, ok := m.index.ids[i.Name]
	return n, ok
}

func (k checker) id(key string, i ID, node *schema.Node) {
	if _, ok := k.number(i); ok {
		return
	}
	hint := k.suggest(i.Name, k.index.containerNames)
	if hint == "" {
		hint = "; the users and groups of images cannot be used here"
	}
	k.errorf(node, "%s %s in %s is neither a number nor the name of a container%s", key, schema.Quote(i.Name), k.where, hint)
}

// An IDMapping maps a range of ids of a user namespace.
type IDMapping struct {
	HostID      uint32 `yaml:"hostID" default:"0" doc:"First id outside the container." example:"100000"`
	ContainerID uint32 `yaml:"containerID" default:"0" doc:"First id in the container." example:"0"`
	Size        uint32 `yaml:"size" default:"0" doc:"Number of ids." example:"65536"`
}

func (m IDMapping) spec() specs.LinuxIDMapping {
	return specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.HostID, Size: m.Size}
}
