package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

const (
	homepage = "https://" + module
	summary  = "build, run and publish bootable immutable Linux machines"
	text     = summary + `
Slipway builds machines the way Docker builds images: one YAML file
describes kernel, root filesystem and services, and BuildKit turns it into
an initramfs, a disk or an ISO. slipway runs it in QEMU, and
slipway-publish makes it an AMI.`
)

// pack writes a Debian or RPM package.
func (r *release) pack(format string, p platform, extras []extra) error {
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	docs := "/usr/share/doc/slipway"
	var contents files.Contents
	add := func(file, system string, mode os.FileMode) {
		contents = append(contents, &files.Content{Source: file, Destination: system,
			FileInfo: &files.ContentFileInfo{Mode: mode, MTime: r.time, Owner: "root", Group: "root"}})
	}
	for _, name := range programs {
		add(filepath.Join(r.programFolder(p), name), "/usr/bin/"+name, 0o755)
	}
	for _, e := range extras {
		file, system := e.file, e.system
		switch {
		case strings.HasPrefix(system, "/usr/share/man/"):
			if file, err = r.compress(file, path.Base(system)+".gz"); err != nil {
				return err
			}
			system += ".gz"
		case strings.HasPrefix(system, "/usr/share/zsh/vendor-completions/") && format == "rpm":
			system = "/usr/share/zsh/site-functions/" + path.Base(system)
		case system != "":
		case format == "deb" && e.archive == "LICENSE":
			if file, err = r.copyright(); err != nil {
				return err
			}
			system = docs + "/copyright"
		case format == "deb" && e.archive == "CHANGELOG.md":
			if file, err = r.compress(file, "changelog.gz"); err != nil {
				return err
			}
			system = docs + "/changelog.gz"
		default:
			system = path.Join(docs, e.archive)
		}
		add(file, system, 0o644)
	}
	number, prerelease, _ := strings.Cut(r.version, "-")
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "slipway", Arch: p.arch, Platform: p.os, Version: number, Prerelease: prerelease, Release: "1",
		Section: "admin", Priority: "optional", Maintainer: "Slipway <maintainers@slipway.build>", Vendor: "Slipway",
		Description: text, Homepage: homepage, License: "Apache-2.0", MTime: r.time, DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Contents: contents,
			Deb:      nfpm.Deb{Compression: "xz"},
			RPM:      nfpm.RPM{Compression: "xz", BuildHost: "localhost", Summary: summary, Group: "System Environment/Base"},
		},
	})
	if format == "deb" {
		info.Recommends = []string{"qemu-system-x86", "ovmf"}
		info.Suggests = []string{"qemu-system-arm", "qemu-efi-aarch64", "swtpm"}
	} else {
		info.Recommends = []string{"qemu-system-x86-core", "edk2-ovmf"}
		info.Suggests = []string{"qemu-system-aarch64-core", "edk2-aarch64", "swtpm"}
	}
	if err := nfpm.PrepareForPackager(info, format); err != nil {
		return err
	}
	return r.create(packager.ConventionalFileName(info), func(w io.Writer) error { return packager.Package(info, w) })
}

// compress compresses a file with gzip, as packages have man pages.
func (r *release) compress(file, name string) (string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return "", err
	}
	if _, err := z.Write(data); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	compressed := filepath.Join(r.work, name)
	return compressed, os.WriteFile(compressed, out.Bytes(), 0o644)
}

// copyright writes the file that Debian's policy requires (section 12.5).
func (r *release) copyright() (string, error) {
	file := filepath.Join(r.work, "copyright")
	return file, os.WriteFile(file, fmt.Appendf(nil, `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Slipway
Source: %s

Files: *
Copyright: The Slipway authors
License: Apache-2.0
 On Debian systems, the text of the license is in
 /usr/share/common-licenses/Apache-2.0. THIRD_PARTY_NOTICES.md beside this
 file lists the software of others.
`, homepage), 0o644)
}

// formula writes a Homebrew formula for the archives that exist.
func (r *release) formula() error {
	var out strings.Builder
	fmt.Fprintf(&out, `class Slipway < Formula
  desc "Build, run and publish bootable immutable Linux machines"
  homepage "%s"
  version "%s"
  license "Apache-2.0"
`, homepage, r.version)
	for system, block := range map[string]string{"darwin": "on_macos", "linux": "on_linux"} {
		var urls string
		for arch, inner := range map[string]string{"amd64": "on_intel", "arm64": "on_arm"} {
			file := r.archiveName(platform{system, arch}) + ".tar.gz"
			sum, err := digest(filepath.Join(r.out, file))
			if os.IsNotExist(err) {
				continue
			}
			if err != nil {
				return err
			}
			urls += fmt.Sprintf("    %s do\n      url \"%s/releases/download/v%s/%s\"\n      sha256 \"%s\"\n    end\n", inner, homepage, r.version, file, sum)
		}
		if urls != "" {
			fmt.Fprintf(&out, "\n  %s do\n%s  end\n", block, urls)
		}
	}
	out.WriteString(`
  depends_on "qemu"

  def install
    bin.install "slipway", "slipway-publish"
    man1.install Dir["man/*.1"]
    %w[slipway slipway-publish].each do |name|
      bash_completion.install "completions/#{name}.bash" => name
      zsh_completion.install "completions/#{name}.zsh" => "_#{name}"
      fish_completion.install "completions/#{name}.fish"
    end
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/slipway --version")
    assert_match version.to_s, shell_output("#{bin}/slipway-publish --version")
  end
end
`)
	return r.create("slipway.rb", func(w io.Writer) error {
		_, err := io.WriteString(w, out.String())
		return err
	})
}
