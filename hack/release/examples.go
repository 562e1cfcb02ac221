package main

import (
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// The images of Slipway in a machine YAML, with the tag that moves.
var movingTag = regexp.MustCompile(`(?m)slipwaybuild/([a-z_-]+):v?1($|[^\w.-])`)

// examples writes an archive of the example machines. They name the images of
// the version, and each has a lock of their digests for all platforms.
func (r *release) examples(pattern, builder, registry string) error {
	host := platform{runtime.GOOS, runtime.GOARCH}
	if err := r.build(host); err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(r.root, "examples", pattern))
	if err != nil {
		return err
	}
	folder := "slipway_" + r.version + "_examples"
	var members []member
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		name := filepath.Base(source)
		yml := filepath.Join(r.work, name)
		if err := os.WriteFile(yml, r.pin(text, registry), 0o644); err != nil {
			return err
		}
		args := []string{"lock", "--platform", "linux/amd64,linux/arm64"}
		if builder != "" {
			args = append(args, "--builder", builder)
		}
		if err := r.command(nil, filepath.Join(r.programFolder(host), host.program("slipway")), append(args, yml)...); err != nil {
			return err
		}
		lock := strings.TrimSuffix(name, ".yml") + ".lock.yml"
		members = append(members, member{folder + "/" + lock, filepath.Join(r.work, lock), 0o644}, member{folder + "/" + name, yml, 0o644})
	}
	return r.tar(folder+".tar.gz", members)
}

// pin names the images of the version in a registry instead of the newest ones.
func (r *release) pin(yml []byte, registry string) []byte {
	return movingTag.ReplaceAll(yml, []byte(strings.TrimPrefix(registry, "docker.io/")+"/${1}:"+r.version+"${2}"))
}
