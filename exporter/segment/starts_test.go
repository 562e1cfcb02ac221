package segment

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/tree"
	"github.com/slipway-build/slipway/internal/contract"
)

func TestCheckStarts(t *testing.T) {
	const root = "containers/services/web/rootfs"
	file := func(name string) tree.Entry { return tree.NewFile(name, 0o644, "") }
	entries := tree.AddParents([]tree.Entry{
		file("etc/app.conf"),
		tree.NewDir("etc/app"),
		tree.NewSymlink("etc/resolv.conf", "/run/resolvconf/resolv.conf"),
		tree.NewSymlink("var", "/etc"),
		file(root + "/usr/bin/web"),
		file(root + "/etc/web.conf"),
		tree.NewDir(root + "/etc/web"),
		tree.NewDir(root + "/data"),
		tree.NewSymlink(root+"/bin", "usr/bin"),
		tree.NewSymlink(root+"/usr/bin/link", "/bin/web"),
		tree.NewSymlink(root+"/usr/bin/loop", "loop"),
		tree.NewSymlink(root+"/usr/bin/dangling", "/opt/web"),
		tree.NewSymlink(root+"/usr/bin/mounted", "../../data/web"),
		tree.NewSymlink(root+"/usr/bin/up", "../../../etc/../bin/web"),
	})
	mount := func(source, destination string) contract.Start {
		return contract.Start{Mounts: []contract.StartMount{{Source: source, Destination: destination}}}
	}
	program := func(names ...string) contract.Start {
		return contract.Start{Command: names[0], Programs: names, Mounts: []contract.StartMount{{Source: "/etc/app", Destination: "/data"}}}
	}
	for name, test := range map[string]struct {
		start contract.Start
		want  string
	}{
		"program":              {program("/usr/bin/web"), ""},
		"linked directory":     {program("/bin/web"), ""},
		"linked program":       {program("/bin/link"), ""},
		"not above the root":   {program("/bin/up"), ""},
		"second in PATH":       {program("/usr/sbin/web", "/usr/bin/web"), ""},
		"below a mount":        {program("/data/web"), ""},
		"link below a mount":   {program("/bin/mounted"), ""},
		"below /proc":          {program("/proc/self/exe"), ""},
		"unknown":              {contract.Start{Command: "web"}, ""},
		"no program":           {program("/usr/bin/wbe"), `command: the image has no file "/usr/bin/wbe"`},
		"no program in a file": {program("/etc/web.conf/x"), `command: the image has no file "/etc/web.conf/x"`},
		"dangling":             {program("/bin/dangling"), `command: the image has no file "/bin/dangling"`},
		"loop":                 {program("/bin/loop"), `command: the image has no file "/bin/loop"`},
		"directory":            {program("/etc/web"), `command: "/etc/web" is a directory`},
		"not in PATH": {
			contract.Start{Command: "wbe", Programs: []string{"/usr/sbin/wbe", "/usr/bin/wbe"}},
			`command: the image has no program "wbe" in /usr/sbin, /usr/bin`,
		},

		"file on file":               {mount("/etc/app.conf", "/etc/web.conf"), ""},
		"directory on directory":     {mount("/etc/app", "/etc/web"), ""},
		"file on nothing":            {mount("/etc/app.conf", "/etc/other"), ""},
		"nothing on file":            {mount("/etc/other", "/etc/web.conf"), ""},
		"link on file":               {mount("/etc/resolv.conf", "/etc/web"), ""},
		"what the machine mounts on": {mount("/var/app.conf", "/etc/web"), ""},
		"volume":                     {mount("/containers/volumes/a/merged", "/etc/web.conf"), ""},
		"filesystem on directory":    {mount("", "/data"), ""},
		"file on directory":          {mount("/etc/app.conf", "/etc/web"), "mount on /etc/web: a file cannot be mounted on a directory of the image"},
		"directory on file":          {mount("/etc/app", "/etc/web.conf"), "mount on /etc/web.conf: a directory cannot be mounted on a file of the image"},
		"the root on file":           {mount("/", "/etc/web.conf"), "mount on /etc/web.conf: a directory cannot be mounted on a file of the image"},
		"filesystem on file":         {mount("", "/bin/web"), "mount on /bin/web: a filesystem cannot be mounted on a file of the image"},
		"on another mount": {contract.Start{Mounts: []contract.StartMount{
			{Destination: "/etc"}, {Source: "/etc/app.conf", Destination: "/etc/web"},
		}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			test.start.Name, test.start.Root = "services.web", root
			got := ""
			if err := CheckStarts(entries, []contract.Start{test.start}); err != nil {
				got = err.Error()
			}
			want := test.want
			if want != "" {
				want = "services.web: " + want + " (to build it anyway: # check=skip=NeverStarts)"
			}
			if got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
	two := []contract.Start{program("/a"), mount("/etc/app", "/etc/web.conf")}
	for i := range two {
		two[i].Name, two[i].Root = "services.web", root
	}
	if err := CheckStarts(entries, two); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two faults: %v", err)
	}
}
