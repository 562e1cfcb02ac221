package disk

import "strings"

// A BootEntry is what the configuration of a boot loader starts.
type BootEntry struct {
	Kernel  string   // path on the volume, without leading slash
	Initrds []string // the same
	Cmdline string   // without what the boot loader prepends
}

// ParseBootEntry reads an entry of systemd-boot (UAPI.1 Boot Loader
// Specification, "Type #1 Boot Loader Specification Entries"). It ignores keys
// that do not say what is started.
func ParseBootEntry(text string) BootEntry {
	var e BootEntry
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value := line, ""
		if i := strings.IndexAny(line, " \t"); i > 0 {
			key, value = line[:i], strings.TrimSpace(line[i:])
		}
		switch key {
		case "linux", "efi":
			e.Kernel = strings.Trim(value, "/")
		case "initrd":
			e.Initrds = append(e.Initrds, strings.Trim(value, "/"))
		case "options":
			// systemd-boot removes one pair of quotes around a value.
			if len(value) >= 2 && (value[0] == '"' || value[0] == '\'') && value[len(value)-1] == value[0] {
				value = value[1 : len(value)-1]
			}
			e.Cmdline = strings.TrimSpace(e.Cmdline + " " + value)
		}
	}
	return e
}

// ParseGRUB reads the commands linux and initrd of a script for GRUB, without
// running it. The first kernel counts.
func ParseGRUB(text string) BootEntry {
	var e BootEntry
	for line := range strings.Lines(text) {
		words := grubTokens(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "linux", "linux16", "linuxefi":
			if e.Kernel != "" {
				return e
			}
			e.Kernel = grubPath(words[1])
			e.Cmdline = grubResult(words[2:])
		case "initrd", "initrd16", "initrdefi":
			if e.Kernel == "" || len(e.Initrds) > 0 {
				continue
			}
			for _, word := range words[1:] {
				e.Initrds = append(e.Initrds, grubPath(word))
			}
		}
	}
	return e
}

// grubPath removes the device and the slashes around a path.
func grubPath(path string) string {
	if i := strings.LastIndexByte(path, ')'); i >= 0 {
		path = path[i+1:]
	}
	return strings.Trim(path, "/")
}

// grubTokens splits a command of GRUB into words (GRUB manual, "Shell-like
// scripting", "Quoting").
func grubTokens(line string) []string {
	var words []string
	var word strings.Builder
	quote, any := byte(0), false
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == 0 && c == '#' && !any:
			return words
		case quote == 0 && (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ';'):
			if any {
				words = append(words, word.String())
				word.Reset()
				any = false
			}
			continue
		case quote == 0 && (c == '\'' || c == '"'):
			quote, any = c, true
			continue
		case c == quote:
			quote = 0
			continue
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			c = line[i]
		}
		word.WriteByte(c)
		any = true
	}
	if any {
		words = append(words, word.String())
	}
	return words
}
