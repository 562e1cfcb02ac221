package machine_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/internal/contract"
	"github.com/slipway-build/slipway/machine"
)

func TestStarts(t *testing.T) {
	m := parse(t, `services:
  - name: path
    image: a
    readonly: true
    binds: [/etc/x:/etc/../y:ro, "data:/data"]
    tmpfs: [/tmp]
    mounts: [{type: bind, source: /dev, destination: /dev}]
  - name: absolute
    image: a
    command: [/bin/b, c]
    env: []
  - name: relative
    image: a
    command: [bin/b]
    cwd: /srv
  - name: no-path
    image: a
    env: [A=b]
  - name: below
    image: a
    runtime: {mounts: [{type: tmpfs, destination: usr}]}
volumes: [{name: data}]
`)
	image := machine.Image{Config: ocispec.ImageConfig{Cmd: []string{"run"}, Env: []string{"PATH=/none", "PATH=/usr/bin:relative:/bin"}}}
	p, err := m.Plan(map[string]machine.Image{m.ImageRefs()[0].Name: image})
	if err != nil {
		t.Fatal(err)
	}
	const root = "containers/services/path/rootfs"
	want := []contract.Start{
		{Name: "services.path", Root: root, Command: "run", Programs: []string{"/usr/bin/run", "/bin/run"}, Mounts: []contract.StartMount{
			{Destination: "/data", Source: "/containers/volumes/data/merged"},
			{Destination: "/y", Source: "/etc/x"},
			{Destination: "/tmp"},
		}},
		{Name: "services.absolute", Root: root, Command: "/bin/b", Programs: []string{"/bin/b"}},
		{Name: "services.relative", Root: root, Command: "bin/b", Programs: []string{"/srv/bin/b"}},
		{Name: "services.no-path", Root: root, Command: "run"},
	}
	var got []contract.Start
	for _, s := range p.Starts {
		got = append(got, s.Start)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	lines := p.Starts[0].MountRanges
	if p.Starts[0].Range.Start != 3 || p.Starts[1].Range.Start != 10 || lines["/y"].Start != 5 || lines["/tmp"].Start != 6 {
		t.Errorf("lines: %+v", p.Starts)
	}
}
