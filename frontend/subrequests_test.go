package frontend

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/subrequests"
	lintreq "github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"

	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/internal/gatewaytest"
	"github.com/slipway-build/slipway/machine"
)

// call answers a subrequest and decodes its JSON.
func call(t *testing.T, g *gatewaytest.Gateway, id string, into any) (text string) {
	t.Helper()
	g.Opts["requestid"] = id
	res := mustBuild(t, g)
	if err := json.Unmarshal(res.Metadata["result.json"], into); err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	if len(res.Metadata["version"]) == 0 {
		t.Errorf("%s: the answer has no version", id)
	}
	if _, ok := res.Metadata[exptypes.ExporterPlatformsKey]; ok {
		t.Errorf("%s: the answer is a build", id)
	}
	return string(res.Metadata["result.txt"])
}

func TestDescribe(t *testing.T) {
	var all []subrequests.Request
	call(t, newGateway(t, "not: [valid"), subrequests.RequestSubrequestsDescribe, &all)
	var names []string
	for _, r := range all {
		names = append(names, r.Name)
	}
	want := []string{"frontend.outline", "frontend.targets", "frontend.lint", "frontend.subrequests.describe",
		"frontend.machine.plan", "frontend.machine.resolved", "frontend.machine.schema", "frontend.machine.lock", "frontend.machine.measurements"}
	if !slices.Equal(names, want) {
		t.Errorf("requests %q, want %q", names, want)
	}
}

func TestUnsupportedSubrequest(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["requestid"] = "frontend.convertllb"
	if _, err := Build(t.Context(), g); err == nil || !strings.Contains(err.Error(), "unsupported request frontend.convertllb") {
		t.Errorf("got %v", err)
	}
}

func TestOutline(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["target"] = "raw,tar"
	g.Opts["build-arg:SIZE"] = "1G"
	var o outline.Outline
	call(t, g, "frontend.outline", &o)
	values := map[string]string{}
	for _, a := range o.Args {
		if a.Description == "" {
			t.Errorf("%s has no description", a.Name)
		}
		values[a.Name] = a.Value
	}
	if o.Name != "raw,tar" || values["NAME"] != "aws" || values["SIZE"] != "1G" || len(values) != len(arguments) {
		t.Errorf("outline %+v", o)
	}
}

func TestTargets(t *testing.T) {
	var list targets.List
	call(t, newGateway(t, twoImages), "frontend.targets", &list)
	var defaults []string
	for _, target := range list.Targets {
		if target.Default {
			defaults = append(defaults, target.Name)
		}
	}
	if len(list.Targets) != len(format.All()) || !slices.Equal(defaults, []string{format.Default}) {
		t.Errorf("targets %+v", list.Targets)
	}
}

func TestSchemaRequest(t *testing.T) {
	var schema map[string]any
	call(t, newGateway(t, ""), "frontend.machine.schema", &schema)
	if schema["properties"] == nil {
		t.Errorf("schema %v", schema)
	}
}

const allCapabilities = twoImages + "    capabilities: [all]\n"

func TestCheck(t *testing.T) {
	g := newGateway(t, allCapabilities)
	var results lintreq.LintResults
	call(t, g, "frontend.lint", &results)
	if results.Error != nil || len(results.Warnings) != 1 {
		t.Fatalf("results %+v", results)
	}
	w := results.Warnings[0]
	if w.RuleName != machine.AllCapabilities || w.URL != rulePage+"allcapabilities" || w.Description == "" || w.Location.Ranges[0].Start.Line != 6 {
		t.Errorf("warning %+v", w)
	}
	if len(graphs(t, g)) > 0 {
		t.Error("the check builds")
	}
}

// The check reports the errors of one file, with warnings about the rest.
func TestCheckWithErrors(t *testing.T) {
	g := newGateway(t, strings.Replace(allCapabilities, "init:v1", "nonsuch:v1", 1)+"  - name: other\n    image: slipwaybuild/nonsuch:v2\n")
	var results lintreq.LintResults
	call(t, g, "frontend.lint", &results)
	if results.Error == nil || !strings.Contains(results.Error.Message, "nonsuch:v1: not found") {
		t.Fatalf("error %+v", results.Error)
	}
	var at []int32
	for _, r := range results.Error.Location.Ranges {
		at = append(at, r.Start.Line)
	}
	if !slices.Equal(at, []int32{2, 8}) {
		t.Errorf("lines %v", at)
	}
}

// The check resolves the images for the platform that the user asks for.
func TestCheckPlatform(t *testing.T) {
	g := newGateway(t, twoImages)
	g.Opts["platform"] = "linux/s390x"
	var results lintreq.LintResults
	call(t, g, "frontend.lint", &results)
	if results.Error == nil || !strings.Contains(results.Error.Message, "does not exist for linux/s390x, but for linux/amd64, linux/arm64") {
		t.Errorf("error %+v", results.Error)
	}
}

func TestLintOfBuild(t *testing.T) {
	for _, c := range []struct {
		name, directive, arg string
		warned, failed       bool
	}{
		{name: "default", warned: true},
		{name: "skip in the YAML", directive: "# check=skip=AllCapabilities\n"},
		{name: "skip all", arg: "skip=all"},
		{name: "the build argument wins", directive: "# check=skip=all\n", arg: "skip=Other", warned: true},
		{name: "error", arg: "error=true", warned: true, failed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newGateway(t, c.directive+allCapabilities)
			if c.arg != "" {
				g.Opts["build-arg:BUILDKIT_DOCKERFILE_CHECK"] = c.arg
			}
			_, err := Build(t.Context(), g)
			if c.failed {
				wantError(t, err, machine.AllCapabilities+": ", "aws.yml:6:capabilities: [all]")
			} else if err != nil {
				t.Fatal(err)
			}
			got := warnings(g)
			if len(got) > 0 != c.warned {
				t.Errorf("warnings %q", got)
			}
		})
	}
	g := newGateway(t, "# check=skop=all\n"+twoImages)
	_, err := Build(t.Context(), g)
	wantError(t, err, "read the check directive: ")
}

func TestPlanRequest(t *testing.T) {
	g := newGateway(t, "kernel:\n  image: slipwaybuild/kernel:v1\n  cmdline: console=ttyS0\n"+allCapabilities+"files:\n  - path: etc/motd\n    contents: hello\n")
	g.Opts["platform"] = "linux/arm64"
	var plan planReport
	text := call(t, g, "frontend.machine.plan", &plan)
	var names []string
	for _, c := range plan.Components {
		names = append(names, c.Name)
		if c.Digest == "" || c.Size != int64(len("segment")) {
			t.Errorf("component %+v", c)
		}
	}
	if !slices.Equal(names, []string{"kernel", "init[0]", "services.sshd"}) || plan.Platform != "linux/arm64" || plan.Cmdline != "console=ttyS0" {
		t.Errorf("plan %+v", plan)
	}
	if len(plan.Containers) != 1 || plan.Containers[0].Place != "/containers/services/sshd" || plan.Containers[0].Runtime == nil {
		t.Errorf("containers %+v", plan.Containers)
	}
	if len(plan.Warnings) != 1 || !strings.HasPrefix(plan.Warnings[0], machine.AllCapabilities+": ") {
		t.Errorf("warnings %q", plan.Warnings)
	}
	for _, want := range []string{
		"services.sshd  /containers/services/sshd/lower  7B    docker.io/slipwaybuild/sshd:v1@sha256:",
		"\ncontainer /containers/services/sshd: /bin/sshd:v1\n",
		"\nfile /etc/motd 0600 0:0",
		"\ncommand line: console=ttyS0\n",
		"\nwarning: AllCapabilities: ",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}

func TestPlanRequestErrors(t *testing.T) {
	g := newGateway(t, "init:\n  - slipwaybuild/nonsuch:v1\n")
	g.Opts["requestid"] = "frontend.machine.plan"
	_, err := Build(t.Context(), g)
	wantError(t, err, "nonsuch:v1: not found", "aws.yml:2:- slipwaybuild/nonsuch:v1")
}
