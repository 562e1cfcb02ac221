package disk

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

// cmdlineMax is the longest command line of Linux on x86 in bytes
// (COMMAND_LINE_SIZE with its NUL is 2048). Boot loaders cut what is longer.
const cmdlineMax = 2047

// What the boot loaders put before the command line of the machine. The kernel
// and initramfs ignore the first, and the kernel's EFI stub reads the second.
const (
	grubPrefix        = "BOOT_IMAGE=/" + kernelPath + " "
	systemdBootPrefix = `initrd=\` + initrdPath + " "
)

// checkCmdline refuses what a boot loader that puts a prefix before it cannot
// pass on.
func checkCmdline(cmdline, prefix string) error {
	if !utf8.ValidString(cmdline) {
		return errors.New("kernel command line: it is not valid UTF-8, which UEFI needs")
	}
	for _, r := range cmdline {
		if unicode.IsControl(r) {
			return fmt.Errorf("kernel command line: it contains the control character %q: remove it", r)
		}
	}
	if over := len(prefix) + len(cmdline) - cmdlineMax; over > 0 {
		return fmt.Errorf("kernel command line: it is %d bytes too long: Linux takes %d, of which the boot loader needs %d",
			over, cmdlineMax, len(prefix))
	}
	return nil
}

// systemdBootEntry is an entry of type 1 of the Boot Loader Specification.
func systemdBootEntry(cmdline string, initrd bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "title Slipway\nlinux /%s\n", kernelPath)
	if initrd {
		fmt.Fprintf(&b, "initrd /%s\n", initrdPath)
	}
	if cmdline != "" {
		// systemd-boot strips blanks around a value, then one pair of quotes
		// (src/boot/efi/boot.c, line_get_key_value): what is in between
		// reaches the kernel as it is, quotes too.
		fmt.Fprintf(&b, "options \"%s\"\n", cmdline)
	}
	return []byte(b.String())
}

// grubConfig is a script that boots at once, without a menu, what is in the
// directory dir.
func grubConfig(dir string, words []string, initrd bool) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "linux %s/%s", dir, kernelPath)
	for _, word := range words {
		// Nothing is special between GRUB's single quotes.
		fmt.Fprintf(&b, " '%s'", word)
	}
	if initrd {
		fmt.Fprintf(&b, "\ninitrd %s/%s", dir, initrdPath)
	}
	b.WriteString("\nboot\n")
	return []byte(b.String())
}

// grubWords cuts the command line into words for GRUB's linux command, which
// rebuilds the line from them (GRUB 2.06, grub-core/lib/cmdline.c): it joins
// them with blanks, puts double quotes around a word that contains a blank, and
// a backslash before every quote and backslash.
//
// So GRUB passes on exactly: words without quotes and backslashes, and words
// that are quoted as a whole and contain a blank. name="a b" becomes
// "name=a b", which Linux takes for the same (lib/cmdline.c, next_arg). Whatever
// would reach Linux with another meaning is refused.
func grubWords(line string) ([]string, error) {
	if line == "" {
		return nil, nil
	}
	var words []string
	for _, word := range cmdline.Split(line) {
		text := cmdline.ParseArg(word).String()
		switch {
		case strings.Contains(text, `"`), strings.Count(word, `"`)%2 != 0, text == "" && word != "":
			return nil, grubError(word, "it can hold quotes around a whole value only: name=\"a value\"")
		case strings.Contains(text, "'"):
			return nil, grubError(word, "it cannot hold a single quote")
		case strings.Contains(text, `\`):
			return nil, grubError(word, "it cannot hold a backslash")
		}
		words = append(words, text)
	}
	return words, nil
}

func grubError(word, reason string) error {
	return fmt.Errorf("kernel command line: GRUB, which boots this disk under BIOS, cannot pass on %s: %s", word, reason)
}

// grubResult is the command line that GRUB makes of words.
func grubResult(words []string) string {
	var quoted []string
	for _, word := range words {
		if strings.Contains(word, " ") {
			word = `"` + word + `"`
		}
		quoted = append(quoted, word)
	}
	return strings.Join(quoted, " ")
}
