package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/docker/go-units"

	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/internal/printable"
)

// size returns a size as people read it.
func size(bytes int64) string { return units.BytesSize(float64(bytes)) }

// WriteText writes the report for people. With all, it lists all packages.
func (r *Report) WriteText(w io.Writer, all bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }
	line("%s: %s, %s", quote(r.Name), r.Kind, size(r.Size))
	for _, f := range r.Files {
		if len(r.Files) > 1 {
			line("  %s\t%s", quote(f.Name), size(f.Size))
		}
	}
	if r.Kernel != nil {
		line("kernel\t%s, %s, %s", quote(r.Kernel.Release), r.Kernel.Architecture, size(r.Kernel.Size))
	}
	if r.Cmdline != "" {
		line("command line\t%s", quote(r.Cmdline))
	}
	if e := r.Enclave; e != nil {
		line("PCR0\t%s", e.PCR0)
		line("PCR1\t%s", e.PCR1)
		line("PCR2\t%s", e.PCR2)
		if e.PCR8 != nil { // the image is signed
			line("PCR8\t%s", e.PCR8)
		}
	}
	if r.Root != "" {
		line("root\t%s", r.Root)
	}
	if v := r.Verity; v != nil {
		state := "root file system and hash tree match"
		if !v.Matches {
			state = "root file system and hash tree do not match: " + quote(v.Error)
		}
		line("dm-verity\t%s", state)
		line("root hash\t%s", quote(v.RootHash))
	}
	if r.MinMemory > 0 {
		line("memory to boot\tabout %s", size(r.MinMemory))
	}
	if len(r.Partitions) > 0 {
		line("\nPARTITION\tTYPE\tSTART\tSIZE\tFILE SYSTEM\tFREE")
		for _, p := range r.Partitions {
			free := ""
			if p.FileSystem == "FAT" {
				free = size(p.Free)
			}
			line("%d\t%s\t%s\t%s\t%s\t%s", p.Number, p.Type, size(p.Start), size(p.Size), p.FileSystem, free)
		}
	}
	if len(r.Loaders) > 0 {
		line("\nFIRMWARE\tLOADER\tARCHITECTURE\tPATH\tSIGNED\tENTRY")
		for _, l := range r.Loaders {
			line("%s\t%s\t%s\t%s\t%s\t%s", l.Firmware, l.Name, l.Architecture, quote(l.Path), yes(l.Signed), quote(l.Entry))
		}
	}
	for _, l := range r.Loaders {
		for _, s := range l.Signers {
			line("\nSIGNER OF %s\tSHA-256 OF THE CERTIFICATE", quote(l.Path))
			line("%s\t%s", quote(s.Subject), s.Fingerprint)
		}
	}
	if m := r.Measurements; m != nil {
		line("\nPCR\tSHA-256 WITH SECURE BOOT %s", map[bool]string{true: "ON", false: "OFF"}[m.SecureBoot])
		for _, pcr := range measure.PCRs {
			line("%d\t%s", pcr, m.PCRs["sha256"][strconv.Itoa(pcr)])
		}
	}
	if len(r.Components) > 0 {
		line("\nCOMPONENT\tCOMPRESSED\tUNPACKED\tFILES")
		for _, c := range r.Components {
			compressed := ""
			if c.Compressed > 0 {
				compressed = size(c.Compressed)
				if c.Shared {
					compressed = "~" + compressed
				}
			}
			line("%s\t%s\t%s\t%d", quote(c.Name), compressed, size(c.Unpacked), c.Files)
		}
	}
	if len(r.Containers) > 0 {
		line("\nCONTAINER\tUSER\tCAPABILITIES\tSHARES\tMEMORY\tREAD-ONLY\tMOUNTS")
		for _, c := range r.Containers {
			limit := ""
			if c.Memory > 0 {
				limit = size(c.Memory)
			}
			line("%s/%s\t%s\t%s\t%s\t%s\t%s\t%s", c.Section, quote(c.Name), c.User, capabilities(c.Capabilities),
				strings.Join(c.SharedNamespaces, ","), limit, yes(c.Readonly), mounts(c.Mounts))
		}
	}
	if len(r.Packages) > 0 && all {
		line("\nPACKAGE\tVERSION\tCOMPONENT")
		for _, p := range r.Packages {
			line("%s\t%s\t%s", quote(p.Name), quote(p.Version), quote(p.Component))
		}
	} else if len(r.Packages) > 0 {
		line("\n%d packages; --packages lists them", len(r.Packages))
	}
	for _, warning := range r.Warnings {
		line("warning: %s", quote(warning))
	}
	return t.Flush()
}

// quote returns a text of a stranger for a terminal.
func quote(text string) string { return printable.Line(text) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// manyCapabilities is how many capabilities are too many to list: runc knows 41.
const manyCapabilities = 8

func capabilities(list []string) string {
	switch {
	case len(list) == 0:
		return "none"
	case len(list) > manyCapabilities:
		return fmt.Sprintf("%d", len(list))
	}
	var short []string
	for _, c := range list {
		short = append(short, quote(strings.TrimPrefix(c, "CAP_")))
	}
	return strings.Join(short, ",")
}

func mounts(list []Mount) string {
	var all []string
	for _, m := range list {
		text := m.Source
		if m.Destination != m.Source {
			text += ":" + m.Destination
		}
		if m.Readonly {
			text += ":ro"
		}
		all = append(all, quote(text))
	}
	return strings.Join(all, " ")
}
