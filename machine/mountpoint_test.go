package machine_test

import (
	"testing"

	"github.com/slipway-build/slipway/machine"
)

// The trees of read-only containers get the mount points that the machine YAML
// decides. Another container may hold the tree.
func TestMountPoints(t *testing.T) {
	p := plan(t, parse(t, `
onboot:
  - {name: first, image: a}
services:
  - name: web
    image: a
    readonly: true
    binds:
      - /etc/resolv.conf:/etc/resolv.conf:ro
      - /etc/web.conf:/etc/web/web.conf
      - /etc/web:/etc/web.d
      - /etc/link:/link
      - /run:/run
      - /run/x:/run/x
      - /run/unknown:/unknown
      - /run/made/inside:/made
      - data:/data/
      - /:/host
      - /dev/console:/dev/console
    tmpfs: ["/tmp:size=1m"]
    mounts: [{destination: /ram, type: tmpfs}]
    runtime:
      mkdir: [/run/made/inside/deep, relative]
      mounts: [{type: tmpfs, source: tmpfs, destination: early}]
  - {name: writable, image: b, binds: ["/x:/x"]}
files:
  - {path: etc/web.conf, contents: x}
  - {path: /etc/web/one, contents: x}
  - {path: etc/link, symlink: web.conf}
volumes:
  - {name: data}
`))
	check(t, "trees", []machine.Tree{
		{
			Name: "onboot.first", Image: "docker.io/library/a", Prefix: "containers/onboot/000-first/lower", Rules: machine.RulesContainer, Range: line(0, 3),
			MountPoints: []machine.MountPoint{
				{Path: "data", Type: machine.TypeDirectory},
				{Path: "early", Type: machine.TypeDirectory},
				{Path: "etc/web.d", Type: machine.TypeDirectory},
				{Path: "etc/web/web.conf", Type: machine.TypeFile},
				{Path: "host", Type: machine.TypeDirectory},
				{Path: "link"},
				{Path: "made", Type: machine.TypeDirectory},
				{Path: "ram", Type: machine.TypeDirectory},
				{Path: "relative", Type: machine.TypeDirectory},
				{Path: "run", Type: machine.TypeDirectory},
				{Path: "tmp", Type: machine.TypeDirectory},
				{Path: "unknown"},
			},
		},
		{Name: "services.writable", Image: "docker.io/library/b", Prefix: "containers/services/writable/lower", Rules: machine.RulesContainer, Range: line(0, 25)},
	}, p.Trees)
}
