package report

import (
	"cmp"
	_ "embed"
	"html/template"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/internal/image"
)

//go:embed page.html
var page string

var templates = template.Must(template.New("page").Funcs(template.FuncMap{
	"size": size, "yes": yes, "join": strings.Join, "capabilities": capabilities, "mounts": mounts, "sizeOf": sizeOf,
}).Parse(page))

// WriteHTML writes the report as one HTML page, which loads nothing.
func (r *Report) WriteHTML(w io.Writer) error {
	return templates.ExecuteTemplate(w, "report", struct {
		*Report
		Treemap []Tile
		Width   float64
		Height  float64
	}{r, r.treemap(), mapWidth, mapHeight})
}

// WriteHTML writes the differences as one HTML page, which loads nothing.
func (d *Diff) WriteHTML(w io.Writer) error { return templates.ExecuteTemplate(w, "diff", d) }

// Size of a treemap in the units of SVG.
const mapWidth, mapHeight = 1000.0, 420.0

// A Tile is a rectangle of a treemap, whose area is a size.
type Tile struct {
	Name                string
	Bytes               int64
	X, Y, Width, Height float64
	Color               template.CSS
}

// LabelX is where the name of the tile starts.
func (t Tile) LabelX() float64 { return t.X + 6 }

// LabelY is the base line of the name.
func (t Tile) LabelY() float64 { return t.Y + 16 }

// Label returns as much of the name as fits.
func (t Tile) Label() string {
	const charWidth = 7.2
	room := int((t.Width - 12) / charWidth)
	switch {
	case t.Height < 20 || room < 3:
		return ""
	case len(t.Name) > room:
		return t.Name[:room-1] + "…"
	}
	return t.Name
}

// treemap returns the tiles of what takes space in the image: the kernel, and the
// components by their compressed sizes, or by their unpacked ones where the root
// file system is not compressed by component.
func (r *Report) treemap() []Tile {
	var tiles []Tile
	if r.Kernel != nil {
		tiles = append(tiles, Tile{Name: "kernel " + r.Kernel.Release, Bytes: r.Kernel.Size})
	}
	compressed := slices.ContainsFunc(r.Components, func(s image.Size) bool { return s.Compressed > 0 })
	for _, c := range r.Components {
		bytes := c.Unpacked
		if compressed {
			bytes = c.Compressed
		}
		tiles = append(tiles, Tile{Name: c.Name, Bytes: bytes})
	}
	var loaders int64
	for _, p := range r.Partitions {
		for _, f := range p.Files {
			if strings.EqualFold(path.Ext(f.Name), ".efi") && len(r.Initramfs) > 0 && f.Size < 4<<20 {
				loaders += f.Size
			}
		}
	}
	tiles = append(tiles, Tile{Name: "boot loaders", Bytes: loaders})
	tiles = slices.DeleteFunc(tiles, func(t Tile) bool { return t.Bytes <= 0 })
	slices.SortStableFunc(tiles, func(a, b Tile) int { return cmp.Compare(b.Bytes, a.Bytes) })
	for n := range tiles {
		tiles[n].Color = colors[n%len(colors)]
	}
	squarify(tiles, 0, 0, mapWidth, mapHeight)
	return tiles
}

// colors have enough contrast to white text (WCAG 2.2, 1.4.3).
var colors = []template.CSS{"#1f5a96", "#7a3e9d", "#1d6b45", "#9a3b26", "#4b5563", "#0f6674", "#8a4b08", "#9d2763"}

// squarify lays out tiles, largest first, in a rectangle (Bruls, Huizing and van
// Wijk, Squarified Treemaps, 2000).
func squarify(tiles []Tile, x, y, width, height float64) {
	var total float64
	for _, t := range tiles {
		total += float64(t.Bytes)
	}
	for len(tiles) > 0 {
		scale := width * height / total // area per byte
		short := min(width, height)
		row, sum, best := 0, 0.0, 0.0
		for row < len(tiles) {
			next := sum + float64(tiles[row].Bytes)
			thickness := next * scale / short
			ratio := func(t Tile) float64 {
				length := float64(t.Bytes) * scale / thickness
				return max(length/thickness, thickness/length)
			}
			worst := max(ratio(tiles[0]), ratio(tiles[row]))
			if row > 0 && worst > best {
				break
			}
			row, sum, best = row+1, next, worst
		}
		thickness := sum * scale / short
		at := 0.0
		for n := range tiles[:row] {
			length := float64(tiles[n].Bytes) * scale / thickness
			if width >= height {
				tiles[n].X, tiles[n].Y, tiles[n].Width, tiles[n].Height = x, y+at, thickness, length
			} else {
				tiles[n].X, tiles[n].Y, tiles[n].Width, tiles[n].Height = x+at, y, length, thickness
			}
			at += length
		}
		if width >= height {
			x, width = x+thickness, width-thickness
		} else {
			y, height = y+thickness, height-thickness
		}
		total -= sum
		tiles = tiles[row:]
	}
}
