package contract

// Entry is a generated file, directory or symbolic link. slipway-packer reads
// them as a JSON array.
type Entry struct {
	Path     string `json:"path"`
	Type     string `json:"type"` // File, Directory or Symlink
	Mode     uint32 `json:"mode"` // permissions, with setuid, setgid and sticky bit: 420 is 0644
	UID      uint32 `json:"uid"`
	GID      uint32 `json:"gid"`
	Contents []byte `json:"contents,omitempty"` // of a file without source
	Source   string `json:"source,omitempty"`   // path of a file below the source directory
	Link     string `json:"link,omitempty"`     // target of a symbolic link
}

// The types of entries.
const (
	File      = "file"
	Directory = "dir"
	Symlink   = "symlink"
)
