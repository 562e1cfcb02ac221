package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strings"
)

const (
	charWidth  = 8.43 // of a character in a monospaced font of fontSize
	lineHeight = 18
	fontSize   = 14
	margin     = 14
	shortest   = 0.1 // of a frame, in seconds
	lastFrame  = 5.0 // seconds that the last frame stays
)

// A frame is what the terminal shows from a time on.
type frame struct {
	at    float64
	lines []string // SVG of each row
}

// frames returns what the terminal shows over time. Output within a tenth of a
// second is one frame.
func (c *cast) frames() []frame {
	s := newScreen(c.Width, c.Height)
	var all []frame
	for i, e := range c.events {
		s.write(e.text)
		if i+1 < len(c.events) && c.events[i+1].at-e.at < shortest && (len(all) == 0 || c.events[i+1].at-all[len(all)-1].at < shortest) {
			continue
		}
		f := frame{at: e.at}
		for _, line := range s.cells {
			f.lines = append(f.lines, drawLine(line))
		}
		if n := len(all); n > 0 && strings.Join(all[n-1].lines, "\n") == strings.Join(f.lines, "\n") {
			continue
		}
		all = append(all, f)
	}
	return all
}

// render writes the recording as an animated SVG. All frames are in one strip,
// which CSS moves past the window; equal lines are stored once.
func (c *cast) render(out *bytes.Buffer) error {
	frames := c.frames()
	if len(frames) == 0 {
		return fmt.Errorf("the recording shows nothing")
	}
	frames[0].at = 0
	width := int(math.Ceil(charWidth*float64(c.Width))) + 2*margin
	height := lineHeight*c.Height + 2*margin
	total := frames[len(frames)-1].at + lastFrame

	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Recording of a terminal">`+"\n", width, height, width, height)
	fmt.Fprintf(out, "<style>\ntext{font:%dpx ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace;fill:#d8dee9;white-space:pre}\n"+
		"#strip{animation:play %.2fs steps(1,end) infinite}\n@keyframes play{\n", fontSize, total)
	for i, f := range frames {
		fmt.Fprintf(out, "%.3f%%{transform:translateX(%dpx)}\n", f.at/total*100, -i*width)
	}
	fmt.Fprintf(out, "100%%{transform:translateX(%dpx)}\n}\n", -(len(frames)-1)*width)
	// Without animations, the last frame stays.
	fmt.Fprintf(out, "@media(prefers-reduced-motion:reduce){#strip{animation:none;transform:translateX(%dpx)}}\n</style>\n<defs>\n", -(len(frames)-1)*width)
	ids := map[string]int{}
	for _, f := range frames {
		for _, line := range f.lines {
			if _, ok := ids[line]; !ok && line != "" {
				ids[line] = len(ids)
				fmt.Fprintf(out, "<g id=\"l%d\">%s</g>\n", ids[line], line)
			}
		}
	}
	fmt.Fprintf(out, "</defs>\n<rect width=\"%d\" height=\"%d\" rx=\"8\" fill=\"#1d2229\"/>\n<g id=\"strip\">\n", width, height)
	for i, f := range frames {
		for row, line := range f.lines {
			if line != "" {
				fmt.Fprintf(out, "<use href=\"#l%d\" x=\"%d\" y=\"%d\"/>", ids[line], i*width+margin, margin+row*lineHeight)
			}
		}
		out.WriteByte('\n')
	}
	out.WriteString("</g>\n</svg>\n")
	return nil
}

// drawLine returns the SVG of a row, or "" if it is empty.
func drawLine(line []cell) string {
	var out strings.Builder
	for start := 0; start < len(line); {
		end := start + 1
		for end < len(line) && line[end].style == line[start].style {
			end++
		}
		text := strings.Map(func(r rune) rune {
			if r == 0 {
				return ' '
			}
			return r
		}, string(runes(line[start:end])))
		style := line[start].style
		if background := style.fill(true); background != "" {
			fmt.Fprintf(&out, `<rect x="%.1f" width="%.1f" height="%d" fill="%s"/>`, charWidth*float64(start), charWidth*float64(end-start), lineHeight, background)
		}
		trimmed := strings.TrimRight(text, " ")
		if lead := len(trimmed) - len(strings.TrimLeft(trimmed, " ")); trimmed != "" {
			trimmed = trimmed[lead:]
			n := len([]rune(trimmed))
			fmt.Fprintf(&out, `<text x="%.1f" y="%d" textLength="%.1f"%s>`, charWidth*float64(start+lead), fontSize, charWidth*float64(n), style.attributes())
			xml.EscapeText(&out, []byte(trimmed)) // a Builder never fails
			out.WriteString("</text>")
		}
		start = end
	}
	return out.String()
}

func runes(cells []cell) []rune {
	var all []rune
	for _, c := range cells {
		all = append(all, c.r)
	}
	return all
}

// attributes returns the SVG attributes of text in the style.
func (s style) attributes() string {
	var out string
	if fill := s.fill(false); fill != "" {
		out += fmt.Sprintf(` fill="%s" style="fill:%s"`, fill, fill)
	}
	if s.bold {
		out += ` font-weight="bold"`
	}
	if s.faint {
		out += ` opacity="0.6"`
	}
	return out
}

// fill returns the color of the text or of the background, "" for the default.
func (s style) fill(background bool) string {
	color, other := s.color, s.background
	if s.inverse {
		color, other = other, color
		if background && other == 0 {
			return "#d8dee9"
		}
		if !background && color == 0 {
			return "#1d2229"
		}
	}
	if background {
		color = other
	}
	if color == 0 {
		return ""
	}
	return palette(color - 1)
}

var base = [16]string{"#4c566a", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d8dee9",
	"#6b7689", "#ef8891", "#b0d68f", "#f2d08f", "#7fc1ff", "#d899ea", "#74cdd8", "#ffffff"}

// palette returns a color of xterm's palette of 256.
func palette(n int) string {
	switch {
	case n < 16:
		return base[n]
	case n < 232:
		level := func(v int) int {
			if v == 0 {
				return 0
			}
			return 55 + 40*v
		}
		n -= 16
		return fmt.Sprintf("#%02x%02x%02x", level(n/36), level(n/6%6), level(n%6))
	}
	gray := 8 + 10*(n-232)
	return fmt.Sprintf("#%02x%02x%02x", gray, gray, gray)
}
