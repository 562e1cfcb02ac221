package machine

// volume is a directory that containers share.
type volume struct {
	Name      value[volumeName] `yaml:"name,required,id" doc:"Name of the volume: small letters, digits, _ and -." example:"data"`
	Image     value[reference]  `yaml:"image" doc:"Image whose files the volume holds at first. Without it the volume is empty." example:"slipwaybuild/data:v1"`
	Readonly  value[bool]       `yaml:"readonly" default:"false" doc:"Whether containers can only read it. They must then bind it with ro."`
	Format    value[string]     `yaml:"format" enum:"filesystem oci" default:"filesystem" doc:"filesystem: the files of the image. oci: the image itself as an OCI image layout."`
	Platforms list[platform]    `yaml:"platforms" default:"all" doc:"With format oci: the platforms of the image to hold, as OS/ARCH[/VARIANT]." example:"[linux/amd64]"`
}

// layout tells whether the volume holds an image itself instead of its files. Without image it is just empty.
func (v *volume) layout() bool { return v.Format.V == "oci" && v.Image.V.name != "" }

// component is the name of the volume among the components of the machine.
func (v *volume) component() string { return "volumes." + string(v.Name.V) }

// directory is where the volume is in the machine.
func (v *volume) directory() string { return volumesDirectory + "/" + string(v.Name.V) }

const volumesDirectory = "containers/volumes"

// merged is the path at which containers find a volume.
func merged(name string) string { return "/" + volumesDirectory + "/" + name + "/merged" }
