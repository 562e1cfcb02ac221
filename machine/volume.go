package machine

import (
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/internal/contract"
)

// volume is a directory that containers share.
type volume struct {
	Name      value[volumeName] `yaml:"name,required,id" doc:"Name of the volume: small letters, digits, _ and -." example:"data"`
	Image     value[reference]  `yaml:"image" doc:"Image whose files the volume holds at first. Without it the volume is empty." example:"slipwaybuild/data:v1"`
	Readonly  value[bool]       `yaml:"readonly" default:"false" doc:"Whether containers can only read it. They must then bind it with ro."`
	Format    value[string]     `yaml:"format" enum:"filesystem oci" default:"filesystem" doc:"filesystem: the files of the image. oci: the image itself as an OCI image layout." example:"oci"`
	Platforms list[platform]    `yaml:"platforms" default:"all" doc:"With format oci: the platforms of the image to hold, as OS/ARCH[/VARIANT]." example:"[linux/amd64]"`
}

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

// layout tells whether the volume holds an image itself instead of its files. Without image it is just empty.
func (v *volume) layout() bool { return v.Format.V == "oci" && v.Image.V.name != "" }

// component is the name of the volume among the components of the machine.
func (v *volume) component() string { return "volumes." + string(v.Name.V) }

// directory is where the volume is in the machine.
func (v *volume) directory() string { return contract.Volumes + "/" + string(v.Name.V) }

// merged is the path at which containers find a volume.
func merged(name string) string { return "/" + contract.Volumes + "/" + name + "/" + contract.Merged }

// volume checks the source of a bind, which is the name of a volume unless it is a path.
func (k checker) volume(key, text, source string, options []string, at Range) {
	if strings.HasPrefix(source, "/") {
		return
	}
	var names []string
	for _, v := range k.Volumes.V {
		names = append(names, string(v.V.Name.V))
	}
	switch i := slices.Index(names, source); {
	case i < 0 && k.Volumes.Wrong && volumeNames.MatchString(source): // it may be the one with the mistake
	case i < 0:
		hint := Suggest(source, names)
		switch {
		case hint != "":
		case volumeNames.MatchString(source):
			hint = "; add it to volumes, or begin a path with /"
		default:
			hint = "; a path begins with /"
		}
		k.wrong(at, "%s %s in %s names the volume %s, which does not exist%s", key, quote(text), k.where, quote(source), hint)
	case k.Volumes.V[i].V.Readonly.V && !slices.Contains(options, "ro"):
		k.wrong(at, "%s %s in %s must have the option ro: volume %s is read-only", key, quote(text), k.where, source)
	}
}
