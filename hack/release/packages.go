package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"
)

const (
	homepage   = "https://" + module
	maintainer = "Slipway <maintainers@users.noreply.github.com>"
	summary    = "build, run and publish bootable immutable Linux machines"
	text       = summary + `
Slipway builds machines the way Docker builds images: one YAML file
describes kernel, root filesystem and services, and BuildKit turns it into
an initramfs, a disk or an ISO. slipway runs it in QEMU, and
slipway-publish makes it an AMI.`
)

// A description is the configuration file of nfpm.
type description struct {
	Name        string    `yaml:"name"`
	Arch        string    `yaml:"arch"`
	Version     string    `yaml:"version"`
	Prerelease  string    `yaml:"prerelease,omitempty"`
	Release     string    `yaml:"release"`
	Section     string    `yaml:"section"`
	Priority    string    `yaml:"priority"`
	Maintainer  string    `yaml:"maintainer"`
	Vendor      string    `yaml:"vendor"`
	Description string    `yaml:"description"`
	Homepage    string    `yaml:"homepage"`
	License     string    `yaml:"license"`
	MTime       time.Time `yaml:"mtime"`
	Literal     bool      `yaml:"disable_globbing"`
	Recommends  []string  `yaml:"recommends"`
	Suggests    []string  `yaml:"suggests"`
	Contents    []content `yaml:"contents"`
	Deb         struct {
		Compression string `yaml:"compression"`
	} `yaml:"deb"`
	RPM struct {
		Compression string `yaml:"compression"`
		BuildHost   string `yaml:"buildhost"`
		Summary     string `yaml:"summary"`
		Group       string `yaml:"group"`
	} `yaml:"rpm"`
}

type content struct {
	Source      string   `yaml:"src"`
	Destination string   `yaml:"dst"`
	Info        fileInfo `yaml:"file_info"`
}

type fileInfo struct {
	Mode  uint32    `yaml:"mode"`
	MTime time.Time `yaml:"mtime"`
	Owner string    `yaml:"owner"`
	Group string    `yaml:"group"`
}

// pack writes a Debian or RPM package with nfpm.
func (r *release) pack(format string, p platform, extras []extra) error {
	d, err := r.describe(format, p, extras)
	if err != nil {
		return err
	}
	data, err := yaml.Marshal(d)
	if err != nil {
		return err
	}
	config := filepath.Join(r.work, "nfpm."+format+".yaml")
	if err := os.WriteFile(config, data, 0o644); err != nil {
		return err
	}
	return r.command(nil, filepath.Join(r.work, "nfpm"), "package", "--config", config, "--packager", format, "--target", r.out)
}

// describe returns what a package consists of.
func (r *release) describe(format string, p platform, extras []extra) (description, error) {
	number, prerelease, _ := strings.Cut(r.version, "-")
	d := description{
		Name: "slipway", Arch: p.arch, Version: number, Prerelease: prerelease, Release: "1",
		Section: "admin", Priority: "optional", Maintainer: maintainer, Vendor: "Slipway",
		Description: text, Homepage: homepage, License: "Apache-2.0", MTime: r.time, Literal: true,
		Recommends: []string{"qemu-system-x86", "ovmf"}, Suggests: []string{"qemu-system-arm", "qemu-efi-aarch64", "swtpm"},
	}
	d.Deb.Compression, d.RPM.Compression = "xz", "xz"
	d.RPM.BuildHost, d.RPM.Summary, d.RPM.Group = "localhost", summary, "System Environment/Base"
	if format == "rpm" {
		d.Recommends, d.Suggests = []string{"qemu-system-x86-core", "edk2-ovmf"}, []string{"qemu-system-aarch64-core", "edk2-aarch64", "swtpm"}
	}
	add := func(file, system string, mode uint32) {
		d.Contents = append(d.Contents, content{file, system, fileInfo{mode, r.time, "root", "root"}})
	}
	for _, name := range programs {
		add(filepath.Join(r.programFolder(p), name), "/usr/bin/"+name, 0o755)
	}
	if format == "deb" {
		more, err := r.debian()
		if err != nil {
			return d, err
		}
		extras = slices.Concat(extras, more)
	}
	for _, e := range extras {
		if format == "deb" && e.archive == "LICENSE" { // Debian has it in common-licenses
			continue
		}
		file, system, err := r.place(format, e)
		if err != nil {
			return d, err
		}
		add(file, system, 0o644)
	}
	return d, nil
}

// place returns the path of a file in a system, and the file in the form that
// the distributions expect there.
func (r *release) place(format string, e extra) (file, system string, err error) {
	const docs = "/usr/share/doc/slipway/"
	file, system = e.file, e.system
	switch {
	case strings.HasPrefix(system, "/usr/share/man/"):
		file, err = r.compress(file, path.Base(system)+".gz")
		system += ".gz"
	case strings.HasPrefix(system, "/usr/share/zsh/") && format == "rpm":
		system = "/usr/share/zsh/site-functions/" + path.Base(system)
	case system != "":
	case format == "deb" && e.archive == "CHANGELOG.md":
		file, err = r.compress(file, "changelog.gz")
		system = docs + "changelog.gz"
	default:
		system = docs + e.archive
	}
	return file, system, err
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

// debian writes the files that Debian's policy requires (sections 4.4 and 12.5),
// and says to lintian that the programs are static on purpose.
func (r *release) debian() ([]extra, error) {
	const docs = "/usr/share/doc/slipway/"
	var all []extra
	for _, f := range []struct{ name, system, text string }{
		{"copyright", docs + "copyright", r.copyright()},
		{"changelog.Debian", docs + "changelog.Debian.gz", fmt.Sprintf("slipway (%s-1) stable; urgency=medium\n\n  * The changes are in changelog.gz.\n\n -- %s  %s\n",
			strings.Replace(r.version, "-", "~", 1), maintainer, r.time.Format(time.RFC1123Z))},
		{"overrides", "/usr/share/lintian/overrides/slipway", "# They run on every distribution.\n" +
			"slipway: statically-linked-binary [usr/bin/slipway]\nslipway: statically-linked-binary [usr/bin/slipway-publish]\n"},
	} {
		file := filepath.Join(r.work, f.name)
		if err := os.WriteFile(file, []byte(f.text), 0o644); err != nil {
			return nil, err
		}
		if strings.HasSuffix(f.system, ".gz") {
			var err error
			if file, err = r.compress(file, f.name+".gz"); err != nil {
				return nil, err
			}
		}
		all = append(all, extra{file: file, system: f.system})
	}
	return all, nil
}

func (r *release) copyright() string {
	return fmt.Sprintf(`Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Slipway
Source: %s

Files: *
Copyright: %d The Slipway authors
License: Apache-2.0
 On Debian systems, the text of the license is in
 /usr/share/common-licenses/Apache-2.0. THIRD_PARTY_NOTICES.md beside this
 file lists the software of others.
`, homepage, r.time.Year())
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
