package frontend

import (
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/defaults"
	"github.com/docker/go-units"

	"github.com/slipway-build/slipway/machine"
)

// maxMessage is how many bytes BuildKit transmits in a message of gRPC, less
// room for the rest of the message.
const maxMessage = defaults.DefaultMaxRecvMsgSize - 64<<10

// A tooLargeError is about a graph that BuildKit does not transmit.
type tooLargeError struct{ size int }

// Error implements error.
func (e tooLargeError) Error() string {
	return fmt.Sprintf("the machine YAML and what is generated from it take %s in BuildKit's graph, which has room for %s; "+
		"move the contents of large files into the build context (source)", units.BytesSize(float64(e.size)), units.BytesSize(maxMessage))
}

// locateSize adds to a tooLargeError the line of the file with the longest
// contents: generated configurations are small when they are compressed.
func (s sources) locateSize(err error, plan *machine.Plan) error {
	var large tooLargeError
	if !errors.As(err, &large) {
		return err
	}
	at, longest := machine.Range{Start: 1, End: 1}, 0
	for _, f := range plan.Files {
		if len(f.Contents) > longest {
			at, longest = f.Range, len(f.Contents)
		}
	}
	return machine.Diagnostics{s.errorAt(at, "%v", large)}
}
