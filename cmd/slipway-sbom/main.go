// Command slipway-sbom lists the software of a machine. It runs inside the build,
// in an empty root filesystem.
//
// Usage:
//
//	slipway-sbom scan    --in DIR --out DIR
//	slipway-sbom machine --spec FILE --out DIR
//	slipway-sbom
//
// scan writes an in-toto statement with an SPDX document of the packages in a root
// filesystem, in the same form as BuildKit's scanners. machine combines such
// statements into one document, sbom.spdx.json. Its --spec is [sbom.Machine] as
// JSON.
//
// Without arguments, slipway-sbom is a scanner for other images than machines: it
// follows BuildKit's protocol (docs/attestations/sbom-protocol.md), which names
// the folders in BUILDKIT_SCAN_SOURCE and BUILDKIT_SCAN_DESTINATION.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/slipway-build/slipway/cmd/internal/command"
	"github.com/slipway-build/slipway/exporter"
	"github.com/slipway-build/slipway/internal/sbom"
)

func main() {
	if destination := os.Getenv("BUILDKIT_SCAN_DESTINATION"); len(os.Args) == 1 && destination != "" {
		os.Args = append(os.Args, "scan", "--in", os.Getenv("BUILDKIT_SCAN_SOURCE"), "--out", destination)
	}
	command.Main("slipway-sbom", []command.Command{
		{Name: "scan", Run: scan},
		{Name: "machine", Run: machine},
	})
}

func scan(args []string, report io.Writer) error {
	flags := command.NewFlags("scan")
	in := flags.String("in", "", "`folder` with the root filesystem")
	out := flags.String("out", "", "`folder` for the statement")
	if err := flags.Parse(args); err != nil {
		return err
	}
	packages, err := sbom.Scan(*in)
	if err != nil {
		return err
	}
	data, err := sbom.Statement(packages, exporter.Epoch)
	if err != nil {
		return err
	}
	fmt.Fprintf(report, "%d packages\n", len(packages))
	return os.WriteFile(filepath.Join(*out, "sbom.spdx.json"), data, 0o644)
}

func machine(args []string, _ io.Writer) error {
	flags := command.NewFlags("machine")
	spec := flags.String("spec", "", "JSON `file` that describes the machine")
	out := flags.String("out", "", "`folder` for the document")
	if err := flags.Parse(args); err != nil {
		return err
	}
	data, err := os.ReadFile(*spec)
	if err != nil {
		return err
	}
	var m sbom.Machine
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	document, err := m.Document()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(*out, "sbom.spdx.json"), document, 0o644)
}
