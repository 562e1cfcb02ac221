package machine

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/internal/schema"
)

// A Volume is a directory that containers share.
type Volume struct {
	Name      VolumeName `yaml:"name" required:"true" id:"true" doc:"Name of the volume: lower-case letters, digits, _ and -." example:"data"`
	Image     Reference  `yaml:"image" doc:"Image with the initial files of the volume. If it is not set, the volume is empty." example:"slipwaybuild/data:v1"`
	Readonly  bool       `yaml:"readonly" default:"false" doc:"Whether containers can only read the volume. They must then bind it with the option ro."`
	Format    string     `yaml:"format" enum:"filesystem oci" default:"filesystem" doc:"filesystem for the files of the image, oci for the image itself as an OCI image layout." example:"oci"`
	Platforms []Platform `yaml:"platforms" default:"all" doc:"Platforms of the image to include if the format is oci, as OS/ARCH[/VARIANT]." example:"[linux/amd64]"`

	Patch  string `yaml:"$patch" enum:"merge replace delete" doc:"What the entry does to the one before it with the same name, usually of an earlier file: changes the keys that it sets, replaces it, or deletes it. Without this key, the entry is a new one." example:"merge"`
	Before string `yaml:"$before" doc:"Puts the entry before the one with this name." example:"data"`
	After  string `yaml:"$after" doc:"Puts the entry after the one with this name." example:"data"`
}

// A VolumeName is part of a path.
type VolumeName string

var volumeNames = regexp.MustCompile(`^[a-z0-9_-]+$`)

// UnmarshalText checks a name.
func (n *VolumeName) UnmarshalText(text []byte) error {
	if !volumeNames.Match(text) {
		return errors.New(`must consist of lower-case letters, digits, "_" and "-"`)
	}
	*n = VolumeName(text)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (VolumeName) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": volumeNames.String()}
}

// String returns the name.
func (n VolumeName) String() string { return string(n) }

// A Platform is a platform of an image: OS/ARCH[/VARIANT].
type Platform string

var platforms = regexp.MustCompile(`^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$`)

// UnmarshalText checks a platform.
func (p *Platform) UnmarshalText(text []byte) error {
	if !platforms.Match(text) {
		return errors.New("must be OS/ARCH[/VARIANT] (for example linux/amd64)")
	}
	*p = Platform(text)
	return nil
}

// Syntax describes the syntax in words and in JSON Schema.
func (Platform) Syntax() (words string, keywords map[string]any) {
	return "", map[string]any{"pattern": platforms.String()}
}

// String returns the platform.
func (p Platform) String() string { return string(p) }

// layout reports whether the volume holds an image itself instead of its files.
// Without an image it is just empty.
func (v *Volume) layout() bool { return v.Format == "oci" && v.Image.Name != "" }

// component returns the name of the volume among the components of the machine.
func (v *Volume) component() string { return "volumes." + string(v.Name) }

// directory returns the directory of the volume in the machine.
func (v *Volume) directory() string { return contract.Volumes + "/" + string(v.Name) }

// merged returns the path at which containers find a volume.
func merged(name string) string { return "/" + contract.Volumes + "/" + name + "/" + contract.Merged }

// volume checks the source of a bind, which is the name of a volume unless it is
// a path.
func (k checker) volume(key, text, source string, options []string, node *schema.Node) {
	if strings.HasPrefix(source, "/") {
		return
	}
	v, ok := k.index.volumes[source]
	switch {
	case !ok && k.node.Key("volumes").Invalid() && volumeNames.MatchString(source): // it may be the invalid one
	case !ok:
		hint := k.suggest(source, k.index.volumeNames)
		switch {
		case hint != "":
		case volumeNames.MatchString(source):
			hint = "; add it to volumes, or start a path with /"
		default:
			hint = "; a path must start with /"
		}
		k.errorf(node, "%s %s in %s refers to the volume %s, which does not exist%s", key, schema.Quote(text), k.where, schema.Quote(source), hint)
	case v.Readonly && !slices.Contains(options, "ro"):
		k.errorf(node, "%s %s in %s must have the option ro: volume %s is read-only", key, schema.Quote(text), k.where, source)
	}
}
