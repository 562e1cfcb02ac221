package frontend

import "testing"

// TestCmdline builds disks whose command lines would add commands to a boot
// entry, or would change their meaning in it.
func TestCmdline(t *testing.T) {
	for _, c := range []struct{ target, cmdline, want string }{
		{"raw", `"a\nlinux /evil"`, `contains the control character '\n'`},
		{"iso-efi", `"a\rb"`, `contains the control character '\r'`},
		{"tar,raw", `"a' ; reboot '"`, "remove the single quote"},
		{"raw-bios", `"a\\"`, "remove the backslash"},
		{"raw-efi", `"a' ; reboot '"`, ""},
		{"kernel+initrd", `"a\nb"`, ""},
	} {
		g := newGateway(t, "kernel:\n  image: slipwaybuild/kernel:v1\n  cmdline: "+c.cmdline+"\ninit:\n  - slipwaybuild/init:v1\n")
		g.Opts["target"] = c.target
		_, err := Build(t.Context(), g)
		if c.want == "" {
			if err != nil {
				t.Errorf("%s %s: %v", c.target, c.cmdline, err)
			}
			continue
		}
		wantError(t, err, c.want, "aws.yml:3:cmdline: "+c.cmdline)
	}
}
