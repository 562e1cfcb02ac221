package disk

import (
	"reflect"
	"testing"
)

// The readers understand what this package writes.
func TestParseWritten(t *testing.T) {
	for _, cmdline := range []string{"", "console=ttyS0", `console=ttyS0 page_poison=1 opt="a b" x`} {
		want := BootEntry{Kernel: kernelPath, Initrds: []string{initrdPath}, Cmdline: cmdline}
		if got := ParseBootEntry(string(systemdBootEntry(cmdline, true, 0))); !reflect.DeepEqual(got, want) {
			t.Errorf("systemd-boot: got %+v, want %+v", got, want)
		}
		words, err := grubWords(cmdline)
		if err != nil {
			t.Fatal(err)
		}
		want.Cmdline = grubResult(words)
		want.Kernel, want.Initrds = "boot/"+kernelPath, []string{"boot/" + initrdPath}
		if got := ParseGRUB(string(grubConfig("/boot", words, true, 0))); !reflect.DeepEqual(got, want) {
			t.Errorf("GRUB: got %+v, want %+v", got, want)
		}
	}
}

// The readers understand what others write.
func TestParseOthers(t *testing.T) {
	for text, want := range map[string]BootEntry{
		"title Linux\r\n\nlinux\t/a\n": {Kernel: "a"},
		"linux /EFI/Linux/vmlinuz\ninitrd /ucode.img\ninitrd  /initrd\noptions root=/dev/sda1 quiet\noptions  'ro'\nversion 6\n": {
			"EFI/Linux/vmlinuz", []string{"ucode.img", "initrd"}, "root=/dev/sda1 quiet ro",
		},
	} {
		if got := ParseBootEntry(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
	for text, want := range map[string]BootEntry{
		"": {},
		"# linux /no\nset timeout=0\nmenuentry 'LinuxKit' {\n\tlinux ($root)/kernel console=ttyS0 a=\"b c\" d\\ e\n\tinitrd /ucode /initrd.img;\n}\nmenuentry x {\n linux /old\n initrd /old.img\n}": {
			"kernel", []string{"ucode", "initrd.img"}, `console=ttyS0 "a=b c" "d e"`,
		},
	} {
		if got := ParseGRUB(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, want %+v", text, got, want)
		}
	}
}
