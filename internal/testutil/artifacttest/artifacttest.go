// Package artifacttest pushes disks to registries for tests.
package artifacttest

import (
	"testing"

	"github.com/slipway-build/slipway/publisher/artifact"
	"github.com/slipway-build/slipway/publisher/disk"
)

// Push pushes files by architecture, all in the same format, and returns the
// reference with the digest.
func Push(t testing.TB, reference, format string, files map[string]string) artifact.Reference {
	t.Helper()
	ref, err := artifact.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	var uploads []artifact.Upload
	for architecture, file := range files {
		d, err := disk.Open(t.Context(), file)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		uploads = append(uploads, artifact.Upload{Disk: d, Format: format, Architecture: architecture})
	}
	pushed, err := artifact.Push(t.Context(), ref, uploads)
	if err != nil {
		t.Fatal(err)
	}
	return pushed
}
