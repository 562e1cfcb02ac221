package machine_test

import (
	"errors"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/slipway-build/slipway/machine"
)

const exampleYAML = `
kernel:
  image: slipwaybuild/kernel:v1
  cmdline: console=ttyS0
init:
  - slipwaybuild/init:v1
services:
  - name: sshd
    image: slipwaybuild/sshd:v1
    binds.add: [/etc/ssh:/etc/ssh:ro]
files:
  - path: etc/motd
    contents: Welcome
`

// The fields of a machine are those of its YAML.
func ExampleParse() {
	m, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte(exampleYAML)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("command line:", m.Kernel.Cmdline)
	for _, s := range m.Services {
		fmt.Println("service:", s.Name, s.Image)
		for _, b := range s.BindsAdd {
			fmt.Println("bind:", b.Source, "on", b.Destination, b.Options)
		}
	}
	// Output:
	// command line: console=ttyS0
	// service: sshd docker.io/slipwaybuild/sshd:v1
	// bind: /etc/ssh on /etc/ssh [ro rbind]
}

// Parse reports all errors at once.
func ExampleParse_diagnostics() {
	const text = `
services:
  - name: web
    image: example.com/web:1
    comand: [serve]
    oomScoreAdj: 5000
`
	_, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte(text)})
	var found machine.Diagnostics
	if errors.As(err, &found) {
		for _, d := range found {
			fmt.Printf("line %d: %s\n", d.Range.Start, d.Message)
		}
	}
	// Output:
	// line 5: unknown key "comand" in service "web" (did you mean "command"?)
	// line 6: oomScoreAdj "5000" in service "web" must be from -1000 to 1000
}

// A plan needs the configs of the images, which the caller resolves.
func ExampleMachine_Plan() {
	m, err := machine.Parse(machine.Source{Name: "machine.yml", Data: []byte(exampleYAML)})
	if err != nil {
		fmt.Println(err)
		return
	}
	images := map[string]machine.Image{}
	for _, ref := range m.ImageRefs() {
		images[ref.Name] = machine.Image{Config: ocispec.ImageConfig{Cmd: []string{"/usr/sbin/sshd"}}}
	}
	plan, err := m.Plan(images)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, tree := range plan.Trees {
		fmt.Printf("%s: %s in /%s\n", tree.Name, tree.Image, tree.Prefix)
	}
	for _, e := range plan.Configs {
		fmt.Println("generated:", e.Path)
	}
	for _, e := range plan.Files {
		fmt.Printf("file: %s %q\n", e.Path, e.Contents)
	}
	// Output:
	// init[0]: docker.io/slipwaybuild/init:v1 in /
	// services.sshd: docker.io/slipwaybuild/sshd:v1 in /containers/services/sshd/lower
	// generated: containers/services/sshd/config.json
	// generated: containers/services/sshd/runtime.json
	// generated: containers/services/sshd/tmp
	// generated: containers/services/sshd/rootfs
	// file: etc/motd "Welcome"
}
