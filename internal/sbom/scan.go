// Package sbom finds out what software an image holds and describes machines
// as SPDX documents.
package sbom

import (
	"bufio"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/textproto"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
)

// Package is a piece of software.
type Package struct {
	Name, Version string
	URL           string // package URL (purl specification)
	Source        string // path in the image of what says so
}

// Scan finds the packages in the root filesystem of an image: those of the
// databases of dpkg and apk, and the modules that Go programs were built of.
// An rpm database is an error: nothing reads it here, and a list without its
// packages would be wrong.
func Scan(dir string) ([]Package, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	s := scanner{root: root}
	if err := s.release(); err != nil {
		return nil, err
	}
	for _, database := range []string{
		"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
		"usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
	} {
		if _, err := root.Stat(database); err == nil {
			return nil, fmt.Errorf("/%s: rpm databases are not read here: name a scanner that reads them with --attest type=sbom,generator=IMAGE", database)
		}
	}
	databases := []struct {
		path string
		add  func(path string, fields textproto.MIMEHeader)
	}{{"var/lib/dpkg/status", s.deb}, {"lib/apk/db/installed", s.apk}, {"usr/lib/apk/db/installed", s.apk}}
	single, err := fs.ReadDir(root.FS(), "var/lib/dpkg/status.d") // of images without dpkg itself
	if err != nil && !missing(err) {
		return nil, err
	}
	for _, e := range single {
		if path.Ext(e.Name()) != ".md5sums" {
			databases = append(databases, struct {
				path string
				add  func(string, textproto.MIMEHeader)
			}{path.Join("var/lib/dpkg/status.d", e.Name()), s.deb})
		}
	}
	for _, d := range databases {
		if err := s.paragraphs(d.path, d.add); err != nil {
			return nil, fmt.Errorf("read /%s: %w", d.path, err)
		}
	}
	if err := s.programs(); err != nil {
		return nil, err
	}
	slices.SortFunc(s.found, func(a, b Package) int { return strings.Compare(a.URL+"\x00"+a.Source, b.URL+"\x00"+b.Source) })
	return slices.CompactFunc(s.found, func(a, b Package) bool { return a.URL == b.URL }), nil
}

type scanner struct {
	root       *os.Root
	id, distro string // of os-release(5)
	found      []Package
}

// missing tells a file that is not there, or that a symbolic link has outside of the image.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || strings.Contains(err.Error(), "path escapes from parent")
}

func (s *scanner) add(kind, namespace, name, version, source string, qualifiers map[string]string) {
	for key, value := range qualifiers {
		if value == "" {
			delete(qualifiers, key)
		}
	}
	url := packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "")
	s.found = append(s.found, Package{Name: name, Version: version, URL: url.ToString(), Source: "/" + source})
}

// release reads which distribution the image is of, os-release(5).
func (s *scanner) release() error {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		data, err := s.root.ReadFile(name)
		if err != nil {
			if missing(err) {
				continue
			}
			return err
		}
		values := map[string]string{}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			values[key] = strings.Trim(value, `"'`)
		}
		s.id = values["ID"]
		if values["VERSION_ID"] != "" {
			s.distro = s.id + "-" + values["VERSION_ID"]
		}
		return nil
	}
	return nil
}

// paragraphs reads a file of "Key: value" lines, in paragraphs that empty lines divide.
func (s *scanner) paragraphs(name string, add func(string, textproto.MIMEHeader)) error {
	f, err := s.root.Open(name)
	if err != nil {
		if missing(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	r := textproto.NewReader(bufio.NewReader(f))
	for {
		fields, err := r.ReadMIMEHeader()
		if len(fields) > 0 {
			add(name, fields)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// deb takes a paragraph of dpkg's database, deb-control(5).
func (s *scanner) deb(file string, p textproto.MIMEHeader) {
	if status := p.Get("Status"); status != "" && !strings.HasSuffix(status, " installed") {
		return
	}
	if p.Get("Package") == "" {
		return
	}
	s.add(packageurl.TypeDebian, s.namespace("debian"), p.Get("Package"), p.Get("Version"), file,
		map[string]string{"arch": p.Get("Architecture"), "distro": s.distro})
}

// apk takes a paragraph of apk's database, apk-v2(5).
func (s *scanner) apk(file string, p textproto.MIMEHeader) {
	if p.Get("P") == "" {
		return
	}
	s.add(packageurl.TypeApk, s.namespace("alpine"), p.Get("P"), p.Get("V"), file,
		map[string]string{"arch": p.Get("A"), "distro": s.distro})
}

// namespace is the distribution's name in package URLs.
func (s *scanner) namespace(usual string) string {
	if s.id == "" {
		s.id = usual
	}
	return s.id
}

// programs reads the build information of Go programs.
func (s *scanner) programs() error {
	return fs.WalkDir(s.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil || info.Mode()&0o111 == 0 {
			return err
		}
		f, err := s.root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		build, err := buildinfo.Read(f)
		if err != nil {
			return nil // another program
		}
		s.module("stdlib", strings.TrimPrefix(build.GoVersion, "go"), name)
		if build.Main.Path != "" {
			s.module(build.Main.Path, build.Main.Version, name)
		}
		for _, m := range build.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			s.module(m.Path, m.Version, name)
		}
		return nil
	})
}

func (s *scanner) module(name, version, file string) {
	if version == "(devel)" {
		version = ""
	}
	dir, base := path.Split(name)
	url := packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(dir, "/"), base, version, nil, "")
	s.found = append(s.found, Package{Name: name, Version: version, URL: url.ToString(), Source: "/" + file})
}
