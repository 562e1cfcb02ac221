package contract

// Start is what the files of a machine must allow so that a container can start.
// slipway-exporter reads them as a JSON array.
type Start struct {
	Name     string       `json:"name"`               // of the container, for error messages
	Root     string       `json:"root"`               // directory of the files of its image
	Command  string       `json:"command"`            // its first word, for error messages
	Programs []string     `json:"programs,omitempty"` // absolute paths in the container where its program can be; empty: unknown
	Mounts   []StartMount `json:"mounts,omitempty"`   // of the container, except those on /dev, /proc and /sys
}

// StartMount is a mount of a container.
type StartMount struct {
	Destination string `json:"destination"`      // absolute path in the container
	Source      string `json:"source,omitempty"` // of a bind: absolute path in the machine
}
