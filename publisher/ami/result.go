package ami

import "sync/atomic"

// A Result is what a publish made or found.
type Result struct {
	Name    string   `json:"name"`
	Content string   `json:"content"` // digest of the disk, with the prefix sha256:
	Images  []*Image `json:"images"`  // one per region
}

// An Image is the AMI in one region.
type Image struct {
	Region       string   `json:"region"`
	Image        string   `json:"image"`            // ID
	Snapshot     string   `json:"snapshot"`         // ID
	Existing     bool     `json:"existing"`         // an earlier run made the image
	Tested       bool     `json:"tested,omitempty"` // with an instance
	Blocks       *Blocks  `json:"blocks,omitempty"`
	BootMode     string   `json:"bootMode"`
	Architecture string   `json:"architecture"`
	Notes        []string `json:"notes,omitempty"`

	tags      map[string]string
	protected bool // from deregistration
}

// Blocks counts the blocks of an upload, of 512 KiB each.
type Blocks struct {
	Total   int    `json:"total"`   // blocks of the disk
	Written int    `json:"written"` // blocks to write in this run
	Resumed int    `json:"resumed"` // blocks that the run before wrote
	Skipped int    `json:"skipped"` // blocks that are zero or equal the parent's
	Parent  string `json:"parent,omitempty"`
}

// A Monitor follows a publish. Its counters sum up all regions and only grow.
type Monitor struct {
	Blocks  atomic.Int64 // blocks to write
	Written atomic.Int64 // blocks written
	Bytes   atomic.Int64 // bytes uploaded
	Skipped atomic.Int64 // blocks that need no writing
	Retries atomic.Int64 // retried requests

	// Step is called before each step, from several goroutines. May be nil.
	Step func(region, step string)
}
