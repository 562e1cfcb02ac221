package machine

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// id is a user or group: a number, or else the name of a container.
type id struct {
	number uint32
	name   string
}

var numbers = regexp.MustCompile(`^-?[0-9]+$`)

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

// firstID is the number of the first container name.
const firstID = 100

// number gives the number of an id.
func (m *Machine) number(i id) (uint32, bool) {
	if i.name == "" {
		return i.number, true
	}
	n, ok := m.ids[i.name]
	return n, ok
}

func (k checker) id(key string, v value[id]) {
	if _, ok := k.number(v.V); ok {
		return
	}
	hint := Suggest(v.V.name, slices.Sorted(maps.Keys(k.ids)))
	if hint == "" {
		hint = "; the users of images are not known here"
	}
	k.wrong(v.At, "%s %s in %s is neither a number nor the name of a container%s", key, quote(v.V.name), k.where, hint)
}

// idMapping maps a range of ids of a user namespace.
type idMapping struct {
	HostID      value[uint32] `yaml:"hostID" default:"0" doc:"First id outside." example:"100000"`
	ContainerID value[uint32] `yaml:"containerID" default:"0" doc:"First id in the container." example:"0"`
	Size        value[uint32] `yaml:"size" default:"0" doc:"How many ids." example:"65536"`
}

func idMappings(l list[idMapping]) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, m := range l.V {
		out = append(out, specs.LinuxIDMapping{ContainerID: m.V.ContainerID.V, HostID: m.V.HostID.V, Size: m.V.Size.V})
	}
	return out
}
