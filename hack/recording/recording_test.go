package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
)

func text(s *screen) string {
	var out strings.Builder
	for _, line := range s.cells {
		out.WriteString(strings.TrimRight(strings.ReplaceAll(string(runes(line)), "\x00", " "), " ") + "\n")
	}
	return strings.TrimRight(out.String(), "\n")
}

func TestScreen(t *testing.T) {
	for name, c := range map[string]struct {
		output []string
		want   string
	}{
		"lines":            {[]string{"a\r\nb\r\n"}, "a\nb"},
		"carriage return":  {[]string{"12%\r34%"}, "34%"},
		"scrolling":        {[]string{"a\r\nb\r\nc\r\nd"}, "b\nc\nd"},
		"wrapping":         {[]string{"0123456789ab"}, "0123456789\nab"},
		"up and erase":     {[]string{"one\r\ntwo\x1b[1A\x1b[2K\rx"}, "x\ntwo"},
		"position":         {[]string{"\x1b[2;3Hx\x1b[Hy"}, "y\n  x"},
		"erase to the end": {[]string{"abc\x1b[2D\x1b[K"}, "a"},
		"erase below":      {[]string{"a\r\nb\r\nc\x1b[2A\x1b[J"}, "a"},
		"split sequence":   {[]string{"ab\x1b[", "1D", "c"}, "ac"},
		"title":            {[]string{"\x1b]0;title\ax"}, "x"},
		"tab":              {[]string{"a\tb"}, "a       b"},
		"cursor modes":     {[]string{"\x1b[?25la\x1b[?25h"}, "a"},
		"save and restore": {[]string{"ab\x1b7cd\x1b8x"}, "abxd"},
		"beyond the edges": {[]string{"\x1b[99A\x1b[99Da\x1b[99B\x1b[99Cb"}, "a\n\n         b"},
	} {
		s := newScreen(10, 3)
		for _, output := range c.output {
			s.write(output)
		}
		if got := text(s); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

func TestStyles(t *testing.T) {
	s := newScreen(10, 1)
	s.write("\x1b[1;31ma\x1b[0mb\x1b[38;5;244mc\x1b[39;7md")
	want := `<text x="0.0" y="14" textLength="8.4" fill="#e06c75" style="fill:#e06c75" font-weight="bold">a</text>` +
		`<text x="8.4" y="14" textLength="8.4">b</text>` +
		`<text x="16.9" y="14" textLength="8.4" fill="#808080" style="fill:#808080">c</text>` +
		`<rect x="25.3" width="8.4" height="18" fill="#d8dee9"/><text x="25.3" y="14" textLength="8.4" fill="#1d2229" style="fill:#1d2229">d</text>`
	if got := drawLine(s.cells[0]); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestQuicken(t *testing.T) {
	c := cast{events: []event{{0.5, "a"}, {10.5, "b"}, {11, "c"}}}
	c.quicken(1)
	for i, want := range []float64{0.5, 1.5, 2} {
		if c.events[i].at != want {
			t.Errorf("event %d at %v, want %v", i, c.events[i].at, want)
		}
	}
}

// A recording of real commands survives being stored, and renders to XML with
// what they printed.
func TestRecord(t *testing.T) {
	c, err := record([]byte("# comment\n\nprintf 'a<b\\n'; stty size; printf '\\303'; sleep 0.2; printf '\\244\\n'\n"))
	if err != nil {
		t.Fatal(err)
	}
	var stored bytes.Buffer
	if err := c.encode(&stored); err != nil {
		t.Fatal(err)
	}
	again, err := decode(&stored)
	if err != nil {
		t.Fatal(err)
	}
	var svg, twice bytes.Buffer
	if err := errors.Join(again.render(&svg), again.render(&twice)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(svg.Bytes(), twice.Bytes()) {
		t.Error("the SVG depends on more than the recording")
	}
	for _, want := range []string{">a&lt;b<", ">26 100<", ">ä<"} {
		if !strings.Contains(svg.String(), want) {
			t.Errorf("no %q in\n%s", want, svg.String())
		}
	}
	wellFormed(t, svg.Bytes())
	if _, err := record([]byte("echo why; exit 3\n")); err == nil || !strings.Contains(err.Error(), "exit status 3: why") {
		t.Errorf("a command that fails: %v", err)
	}
}

func wellFormed(t *testing.T, svg []byte) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// The SVG of README.md is what its recording renders to, and needs no network.
func TestRecordingOfReadme(t *testing.T) {
	in, err := os.Open("../../docs/recording.cast")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	c, err := decode(in)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := c.render(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/recording.svg")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/recording.svg is out of date: run go run ./hack/recording render docs/recording.cast docs/recording.svg")
	}
	wellFormed(t, got)
	for _, banned := range []string{"<script", "@import", "url(", "href=\"http"} {
		if bytes.Contains(got, []byte(banned)) {
			t.Errorf("the SVG contains %s", banned)
		}
	}
}
