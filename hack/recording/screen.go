package main

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// A screen is what a terminal shows. It understands what the recorded programs
// write: control characters, and the sequences of ECMA-48 that move the cursor,
// erase, and set colors.
type screen struct {
	cells    [][]cell
	row, col int
	style    style
	saved    [2]int // row and column
	partial  string // of a control sequence
}

type cell struct {
	r     rune
	style style
}

// A style is how a character looks. Colors are those of xterm's palette, plus
// one; 0 is the default.
type style struct {
	color, background int
	bold, faint       bool
	inverse           bool
}

func newScreen(width, height int) *screen {
	s := &screen{cells: make([][]cell, height)}
	for i := range s.cells {
		s.cells[i] = make([]cell, width)
	}
	return s
}

// wholeRunes returns how many bytes of a text end with a whole character.
func wholeRunes(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if b := text[len(text)-n]; utf8.RuneStart(b) {
			if !utf8.FullRune(text[len(text)-n:]) {
				return len(text) - n
			}
			break
		}
	}
	return len(text)
}

// write shows output.
func (s *screen) write(text string) {
	text = s.partial + text
	s.partial = ""
	for text != "" {
		if text[0] == '\x1b' {
			n := sequence(text)
			if n == 0 {
				s.partial = text
				return
			}
			if strings.HasPrefix(text, "\x1b[") {
				s.control(text[2:n-1], text[n-1])
			} else if text[:n] == "\x1b7" {
				s.saved = [2]int{s.row, s.col}
			} else if text[:n] == "\x1b8" {
				s.row, s.col = s.saved[0], s.saved[1]
			}
			text = text[n:]
			continue
		}
		r, n := utf8.DecodeRuneInString(text)
		text = text[n:]
		s.put(r)
	}
}

// sequence returns the length of the escape sequence at the start of a text, or 0
// if the text has only a part of it.
func sequence(text string) int {
	switch {
	case len(text) < 2:
		return 0
	case text[1] == '[': // parameters and intermediate bytes, then a final byte
		for i := 2; i < len(text); i++ {
			if text[i] >= 0x40 && text[i] <= 0x7e {
				return i + 1
			}
		}
		return 0
	case text[1] == ']': // a command of the operating system, such as the title
		if i := strings.IndexAny(text, "\a"); i >= 0 {
			return i + 1
		}
		if i := strings.Index(text, "\x1b\\"); i >= 0 {
			return i + 2
		}
		return 0
	case text[1] == '(' || text[1] == ')':
		if len(text) < 3 {
			return 0
		}
		return 3
	}
	return 2
}

func (s *screen) put(r rune) {
	width := len(s.cells[0])
	switch r {
	case '\r':
		s.col = 0
	case '\n':
		s.newline()
	case '\b':
		s.col = max(0, s.col-1)
	case '\t':
		s.col = min(width-1, s.col/8*8+8)
	default:
		if r < ' ' || r == 0x7f {
			return
		}
		if s.col >= width {
			s.col = 0
			s.newline()
		}
		s.cells[s.row][s.col] = cell{r, s.style}
		s.col++
	}
}

func (s *screen) newline() {
	if s.row++; s.row < len(s.cells) {
		return
	}
	s.row = len(s.cells) - 1
	copy(s.cells, s.cells[1:])
	s.cells[s.row] = make([]cell, len(s.cells[0]))
}

// control executes a control sequence.
func (s *screen) control(parameters string, final byte) {
	if strings.HasPrefix(parameters, "?") || strings.HasPrefix(parameters, ">") {
		return // a mode of the terminal
	}
	var p []int
	for text := range strings.SplitSeq(parameters, ";") {
		n, _ := strconv.Atoi(text) // absent: 0
		p = append(p, min(max(n, 0), 10000))
	}
	count := max(1, p[0])
	height, width := len(s.cells), len(s.cells[0])
	switch final {
	case 'A':
		s.row = max(0, s.row-count)
	case 'B':
		s.row = min(height-1, s.row+count)
	case 'C':
		s.col = min(width-1, s.col+count)
	case 'D':
		s.col = max(0, min(s.col, width)-count)
	case 'E':
		s.row, s.col = min(height-1, s.row+count), 0
	case 'F':
		s.row, s.col = max(0, s.row-count), 0
	case 'G':
		s.col = min(width, count) - 1
	case 'H', 'f':
		column := 1
		if len(p) > 1 {
			column = max(1, p[1])
		}
		s.row, s.col = min(height, count)-1, min(width, column)-1
	case 'J':
		s.eraseScreen(p[0])
	case 'K':
		s.eraseLine(p[0])
	case 'm':
		s.render(p)
	}
}

func (s *screen) eraseScreen(mode int) {
	from, to := s.row+1, len(s.cells) // mode 0: to the end
	if mode == 1 {
		from, to = 0, s.row
	}
	if mode >= 2 {
		from = 0
	} else {
		s.eraseLine(mode)
	}
	for i := from; i < to; i++ {
		clear(s.cells[i])
	}
}

func (s *screen) eraseLine(mode int) {
	line := s.cells[s.row]
	col := min(s.col, len(line))
	switch mode {
	case 0:
		clear(line[col:])
	case 1:
		clear(line[:min(col+1, len(line))])
	case 2:
		clear(line)
	}
}

// render sets the style of what follows (ECMA-48, SGR).
func (s *screen) render(p []int) {
	for i := 0; i < len(p); i++ {
		switch n := p[i]; {
		case n == 0:
			s.style = style{}
		case n == 1:
			s.style.bold = true
		case n == 2:
			s.style.faint = true
		case n == 7:
			s.style.inverse = true
		case n == 22:
			s.style.bold, s.style.faint = false, false
		case n == 27:
			s.style.inverse = false
		case n >= 30 && n <= 37:
			s.style.color = n - 30 + 1
		case n == 39:
			s.style.color = 0
		case n >= 40 && n <= 47:
			s.style.background = n - 40 + 1
		case n == 49:
			s.style.background = 0
		case n >= 90 && n <= 97:
			s.style.color = n - 90 + 8 + 1
		case n >= 100 && n <= 107:
			s.style.background = n - 100 + 8 + 1
		case (n == 38 || n == 48) && i+2 < len(p) && p[i+1] == 5:
			if n == 38 {
				s.style.color = min(p[i+2], 255) + 1
			} else {
				s.style.background = min(p[i+2], 255) + 1
			}
			i += 2
		case (n == 38 || n == 48) && i+1 < len(p) && p[i+1] == 2:
			i += 4 // 24-bit colors are not used
		}
	}
}
