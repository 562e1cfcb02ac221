package main

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// networkConfig is the network configuration of cloud-init, in both of its
// versions:
// https://docs.cloud-init.io/en/latest/reference/network-config-format-v1.html
// https://docs.cloud-init.io/en/latest/reference/network-config-format-v2.html
type networkConfig struct {
	Network *networkConfig `yaml:"network"` // as in netplan
	Version int            `yaml:"version"`

	Config []deviceV1 `yaml:"config"` // version 1

	Renderer  string                `yaml:"renderer"` // version 2
	Ethernets map[string]ethernetV2 `yaml:"ethernets"`
	Bonds     map[string]stackedV2  `yaml:"bonds"`
	Bridges   map[string]stackedV2  `yaml:"bridges"`
	VLANs     map[string]vlanV2     `yaml:"vlans"`

	ignored []string // parameters that are not supported
}

// texts is a list of texts, or a single one.
type texts []string

func (t *texts) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode {
		return node.Decode((*[]string)(t))
	}
	var text string
	err := node.Decode(&text)
	if text != "" {
		*t = texts{text}
	}
	return err
}

// boolean is a boolean of YAML 1.1.
type boolean bool

func (b *boolean) UnmarshalYAML(node *yaml.Node) error {
	switch strings.ToLower(node.Value) {
	case "true", "yes", "on":
		*b = true
	case "false", "no", "off", "":
	default:
		return fmt.Errorf("line %d: %q must be true or false", node.Line, node.Value)
	}
	return nil
}

// addNetworkConfig adds the links of a configuration. If parts are invalid, the
// others are still added.
func (in *instance) addNetworkConfig(text []byte) {
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		in.networkErr = networkConfigError(err)
		return
	}
	in.addNetworkNode(&node)
}

// addNetworkNode is addNetworkConfig for parsed YAML.
func (in *instance) addNetworkNode(node *yaml.Node) {
	var config networkConfig
	err := node.Decode(&config)
	failed := []error{err}
	if config.Network != nil {
		config = *config.Network
	}
	switch config.Version {
	case 1:
		in.network, err = config.linksV1()
	case 2:
		in.network, err = config.linksV2()
	default:
		err = fmt.Errorf("version %d: must be 1 or 2", config.Version)
	}
	in.networkErr = networkConfigError(errors.Join(append(failed, err)...))
	for _, key := range append(unknownKeys(node, reflect.TypeFor[networkConfig](), ""), config.ignored...) {
		in.ignored = append(in.ignored, fmt.Sprintf("network-config: %q is not supported: remove it, or configure it with ip in an onboot container", key))
	}
}

// networkConfigError returns an error whose lines name the file.
func networkConfigError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("network-config: %s", strings.ReplaceAll(err.Error(), "\n", "\nnetwork-config: "))
}

// unknownKeys returns the paths of the keys in a document that a type does not
// have.
func unknownKeys(node *yaml.Node, t reflect.Type, path string) (unknown []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	for node.Kind == yaml.DocumentNode || node.Kind == yaml.AliasNode {
		if node.Alias != nil {
			node = node.Alias
		} else if node = node.Content[0]; node == nil {
			return nil
		}
	}
	switch {
	case t == reflect.TypeFor[yaml.Node](): // read elsewhere
	case node.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range node.Content {
			unknown = append(unknown, unknownKeys(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))...)
		}
	case node.Kind == yaml.MappingNode && (t.Kind() == reflect.Map || t.Kind() == reflect.Struct):
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i].Value
			below := strings.TrimPrefix(path+"."+key, ".")
			if t.Kind() == reflect.Map {
				unknown = append(unknown, unknownKeys(node.Content[i+1], t.Elem(), below)...)
			} else if field, ok := fieldOf(t, key); ok {
				unknown = append(unknown, unknownKeys(node.Content[i+1], field, below)...)
			} else {
				unknown = append(unknown, below)
			}
		}
	}
	return unknown
}

// fieldOf returns the type of the field that a key sets.
func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for _, field := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(field.Tag.Get("yaml"), ","); name == key && name != "" {
			return field.Type, true
		}
	}
	return nil, false
}

// parameters are the options of a bond or bridge.
type parameters map[string]texts

func (p *parameters) UnmarshalYAML(node *yaml.Node) error {
	*p = parameters{}
	if node.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: parameters must be a mapping", node.Line)
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		var value texts
		if err := value.UnmarshalYAML(node.Content[i+1]); err != nil {
			value = nil // a mapping, which no supported parameter has
		}
		(*p)[node.Content[i].Value] = value
	}
	return nil
}

// take returns those parameters that a kind of link has, and the keys of the
// others. The keys are those of version 2, or have these names in known.
func (p parameters) take(kind string, known map[string]string) (taken map[string]string, ignored []string) {
	taken = map[string]string{}
	for _, key := range sortedKeys(p) {
		name := key
		if known != nil {
			name = known[strings.ReplaceAll(key, "_", "-")]
		}
		if !hasParameter(kind, name) {
			ignored = append(ignored, key)
			continue
		}
		taken[name] = strings.Join(p[key], ",")
	}
	return taken, ignored
}

// prefixOf returns an address in the form 192.0.2.7/24. The mask is a netmask,
// a prefix length, or "" if the address contains the length.
func prefixOf(address, mask string) (string, error) {
	if prefix, err := netip.ParsePrefix(address); err == nil {
		return prefix.String(), nil
	}
	if bits, err := strconv.Atoi(mask); err == nil {
		prefix, err := netip.ParsePrefix(fmt.Sprintf("%s/%d", address, bits))
		return prefix.String(), err
	}
	return withMask(address, mask)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
