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
// (COMMAND_LINE_SIZE, which includes the NUL, is 2048). Boot loaders cut off the
// rest of a longer one.
const cmdlineMax = 2047

// Boot loaders prepend these words to the command line. The kernel ignores the first,
// and its EFI stub reads the second.
const (
	grubPrefix        = "BOOT_IMAGE=/" + kernelPath + " "
	systemdBootPrefix = `initrd=\` + initrdPath + " "
)

// CheckCmdline returns an error for a command line that no disk can pass on, so
// that a build fails before it makes one: it is not text, is too long for Linux,
// or, if bios is true, changes its meaning in GRUB. New and NewCD also count what
// their boot loaders prepend.
func CheckCmdline(cmdline string, bios bool) error {
	if err := checkCmdline(cmdline, ""); err != nil || !bios {
		return err
	}
	_, err := grubWords(cmdline)
	return err
}

// checkCmdline returns an error for a command line that a boot loader with this prefix
// cannot pass on.
func checkCmdline(cmdline, prefix string) error {
	if !utf8.ValidString(cmdline) {
		return errors.New("kernel command line: it is not valid UTF-8, which UEFI requires")
	}
	for _, r := range cmdline {
		if unicode.IsControl(r) {
			return fmt.Errorf("kernel command line: it contains the control character %q: remove it", r)
		}
	}
	if over := len(prefix) + len(cmdline) - cmdlineMax; over > 0 {
		return fmt.Errorf("kernel command line: it is %d bytes too long: Linux accepts %d, and the boot loader needs %d of them",
			over, cmdlineMax, len(prefix))
	}
	return nil
}

// systemdBootEntry returns a boot entry (UAPI.1 Boot Loader Specification, "Type #1
// Boot Loader Specification Entries").
// It reserves that many bytes.
func systemdBootEntry(cmdline string, initrd bool, reserved int64) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "title Slipway\nlinux /%s\n", kernelPath)
	if initrd {
		fmt.Fprintf(&b, "initrd /%s\n", initrdPath)
	}
	if cmdline != "" || reserved > 0 {
		// systemd-boot removes spaces around a value, then one pair of quotes
		// (src/boot/efi/boot.c, line_get_key_value). The text between them
		// reaches the kernel unchanged.
		b.WriteString(reservedLine(`options "`+cmdline, `"`, reserved))
	}
	return []byte(b.String())
}

// grubConfig returns a script that boots the kernel in a directory without a menu.
// It reserves that many bytes.
func grubConfig(dir string, words []string, initrd bool, reserved int64) []byte {
	var b strings.Builder
	line := fmt.Sprintf("linux %s/%s", dir, kernelPath)
	for _, word := range words {
		// GRUB does not interpret the text in single quotes.
		line += " '" + word + "'"
	}
	b.WriteString(reservedLine(line, "", reserved))
	if initrd {
		fmt.Fprintf(&b, "initrd %s/%s\n", dir, initrdPath)
	}
	b.WriteString("boot\n")
	return []byte(b.String())
}

// grubWords splits the command line into words for GRUB's linux command, which joins
// them again (GRUB 2.06, grub-core/lib/cmdline.c): with spaces between them, with
// double quotes around a word that contains a space, and with a backslash before
// every quote and backslash.
//
// GRUB therefore passes on unchanged: words without quotes and backslashes, and words
// that contain a space and are quoted as a whole. It changes name="a b" to
// "name=a b", which has the same meaning for Linux (lib/cmdline.c, next_arg).
// grubWords returns an error for a word that GRUB would pass on with another meaning.
func grubWords(line string) ([]string, error) {
	if line == "" {
		return nil, nil
	}
	var words []string
	for _, word := range cmdline.Split(line) {
		text := cmdline.ParseArg(word).String()
		switch {
		case strings.Contains(text, `"`), strings.Count(word, `"`)%2 != 0, text == "" && word != "":
			return nil, grubError(word, "use quotes around a whole value only: name=\"a value\"")
		case strings.Contains(text, "'"):
			return nil, grubError(word, "remove the single quote")
		case strings.Contains(text, `\`):
			return nil, grubError(word, "remove the backslash")
		}
		words = append(words, text)
	}
	return words, nil
}

func grubError(word, reason string) error {
	return fmt.Errorf("kernel command line: GRUB, which boots this disk under BIOS, cannot pass on %s: %s", word, reason)
}

// grubResult returns the command line that GRUB passes on.
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
