// Package exporter names the formats that a machine can be written in. The
// packages below it write them.
package exporter

// Format is one kind of output. The table is the only place that lists them:
// the frontend's targets, its documentation and the exporter read it.
type Format struct {
	Name        string   // as in --target
	Description string   // one line
	Files       []string // what is written; NAME stands for the prefix
	Disk        bool     // has a size that the user may choose
	Map         bool     // has a map, NAME.raw.map, if the user wants it
	Loaders     bool     // needs the boot loaders
	Tree        bool     // is made of the tree (tar segments), not of the initramfs
}

// Formats lists every output format, the default first.
var Formats = []Format{
	{
		Name:        "kernel+initrd",
		Description: "kernel, initramfs and kernel command line as files",
		Files:       []string{"NAME-kernel", "NAME-initrd.img", "NAME-cmdline"},
	},
	{
		Name:        "raw",
		Description: "GPT disk that boots under BIOS and UEFI",
		Files:       []string{"NAME.raw"},
		Disk:        true,
		Map:         true,
		Loaders:     true,
	},
	{
		Name:        "tar",
		Description: "root filesystem as a tar archive",
		Files:       []string{"NAME.tar"},
		Tree:        true,
	},
}

// Epoch is the time that files are given where SOURCE_DATE_EPOCH is not set,
// in seconds since 1970: 1980-01-01, the first that FAT can hold.
const Epoch int64 = 315532800
