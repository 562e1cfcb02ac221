// Package sbom lists the software in images and describes machines as SPDX
// documents.
package sbom

import (
	"bufio"
	"cmp"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
)

// A Package is installed software.
type Package struct {
	Name, Version string
	URL           string // package URL (purl specification)
	Source        string // path in the image of the database or program that lists it
}

// Scan returns the packages in the root filesystem of an image, sorted by URL:
// those in the databases of dpkg and apk, and the modules of Go programs. It fails
// if the image has an rpm database, because it cannot read it and a list without
// its packages would be wrong.
func Scan(dir string) ([]Package, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return ScanFS(root.FS())
}

// ScanFS is like Scan for a root filesystem whose files implement io.ReaderAt.
func ScanFS(root fs.FS) ([]Package, error) {
	s := scanner{root: root}
	if err := s.readRelease(); err != nil {
		return nil, err
	}
	for _, database := range rpmDatabases {
		if _, err := fs.Stat(root, database); err == nil {
			return nil, fmt.Errorf("/%s: rpm databases are not supported: name a scanner that reads them with --attest type=sbom,generator=IMAGE", database)
		}
	}
	databases, err := s.databases()
	if err != nil {
		return nil, err
	}
	for _, d := range databases {
		if err := s.readParagraphs(d.path, d.add); err != nil {
			return nil, fmt.Errorf("read /%s: %w", d.path, err)
		}
	}
	if err := s.readPrograms(); err != nil {
		return nil, err
	}
	slices.SortFunc(s.found, func(a, b Package) int { return strings.Compare(a.URL+"\x00"+a.Source, b.URL+"\x00"+b.Source) })
	return slices.CompactFunc(s.found, func(a, b Package) bool { return a.URL == b.URL }), nil
}

// rpmDatabases are the paths at which rpm has kept its database.
var rpmDatabases = []string{
	"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
	"usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
}

// A scanner collects the packages of an image.
type scanner struct {
	root       fs.FS
	id, distro string // from os-release(5)
	found      []Package
}

// Limits for images of strangers. Those of real images are far below them.
const (
	maxRelease  = 64 << 10 // bytes of os-release
	maxDatabase = 64 << 20 // bytes of a database
	maxLine     = 1 << 20  // bytes of a line in a database
	maxProgram  = 64 << 20 // bytes that the search in one program reads
	maxPackages = 200_000  // in an image
)

// A database is a file of paragraphs, one per package.
type database struct {
	path string
	add  func(path string, paragraph map[string]string)
}

// databases returns the databases that the image can have.
func (s *scanner) databases() ([]database, error) {
	all := []database{{"var/lib/dpkg/status", s.addDeb}, {"lib/apk/db/installed", s.addAPK}, {"usr/lib/apk/db/installed", s.addAPK}}
	const dir = "var/lib/dpkg/status.d" // in images without dpkg, one file per package
	files, err := fs.ReadDir(s.root, dir)
	if err != nil && !isMissing(err) {
		return nil, err
	}
	for _, f := range files {
		if path.Ext(f.Name()) != ".md5sums" {
			all = append(all, database{path.Join(dir, f.Name()), s.addDeb})
		}
	}
	return all, nil
}

// isMissing reports whether a file does not exist in the image, or is a symbolic
// link that leads out of the image.
func isMissing(err error) bool {
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

// readRelease reads the name of the distribution from os-release(5).
func (s *scanner) readRelease() error {
	for _, name := range []string{"etc/os-release", "usr/lib/os-release"} {
		f, err := s.open(name)
		if err != nil {
			if isMissing(err) {
				continue
			}
			return err
		}
		data, err := io.ReadAll(limitReader(f, maxRelease))
		f.Close()
		if err != nil {
			return fmt.Errorf("read /%s: %w", name, err)
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

// open opens a regular file. Opening a FIFO would wait forever.
func (s *scanner) open(name string) (fs.File, error) {
	info, err := fs.Stat(s.root, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("/%s is not a regular file", name)
	}
	return s.root.Open(name)
}

// limitReader returns a reader that fails after the given number of bytes.
func limitReader(r io.Reader, limit int64) io.Reader {
	return io.MultiReader(io.LimitReader(r, limit), endReader{r, limit})
}

// An endReader fails unless r has ended.
type endReader struct {
	r     io.Reader
	limit int64
}

func (e endReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if n > 0 {
		return 0, fmt.Errorf("more than %d bytes", e.limit)
	}
	return 0, err
}

// readParagraphs reads paragraphs of "Key: value" lines, which empty lines
// separate. Lines that start with a blank continue a value; they are ignored.
func (s *scanner) readParagraphs(name string, add func(string, map[string]string)) error {
	f, err := s.open(name)
	if err != nil {
		if isMissing(err) {
			return nil
		}
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(limitReader(f, maxDatabase))
	lines.Buffer(nil, maxLine)
	fields := map[string]string{}
	for lines.Scan() {
		line := lines.Text()
		key, value, ok := strings.Cut(line, ":")
		switch {
		case line == "":
			add(name, fields)
			clear(fields)
		case line[0] == ' ' || line[0] == '\t':
		case !ok:
			return fmt.Errorf("invalid line %q", line[:min(len(line), 64)])
		case wanted[key] && fields[key] == "":
			fields[key] = strings.TrimSpace(value)
		}
		if len(s.found) > maxPackages {
			return errTooMany
		}
	}
	add(name, fields)
	return lines.Err()
}

var errTooMany = fmt.Errorf("more than %d packages", maxPackages)

// wanted are the keys of paragraphs that addDeb and addAPK read.
var wanted = map[string]bool{
	"Package": true, "Status": true, "Version": true, "Architecture": true,
	"P": true, "V": true, "A": true,
}

// addDeb adds a package from dpkg's database (deb-control(5)).
func (s *scanner) addDeb(file string, p map[string]string) {
	if status := p["Status"]; status != "" && !strings.HasSuffix(status, " installed") {
		return
	}
	if p["Package"] == "" {
		return
	}
	s.add(packageurl.TypeDebian, s.namespace("debian"), p["Package"], p["Version"], file,
		map[string]string{"arch": p["Architecture"], "distro": s.distro})
}

// addAPK adds a package from apk's database (apk-v2(5)).
func (s *scanner) addAPK(file string, p map[string]string) {
	if p["P"] == "" {
		return
	}
	s.add(packageurl.TypeApk, s.namespace("alpine"), p["P"], p["V"], file,
		map[string]string{"arch": p["A"], "distro": s.distro})
}

// namespace returns the name of the distribution in package URLs.
func (s *scanner) namespace(byDefault string) string {
	return cmp.Or(s.id, byDefault)
}

// readPrograms adds the modules of Go programs.
func (s *scanner) readPrograms() error {
	return fs.WalkDir(s.root, ".", func(name string, d fs.DirEntry, err error) error {
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
		content, ok := f.(io.ReaderAt)
		if !ok {
			return fmt.Errorf("/%s cannot be read at an offset", name)
		}
		build, err := buildinfo.Read(&limitedReaderAt{content, maxProgram})
		if err != nil {
			return nil // not a Go program
		}
		s.addModule("stdlib", strings.TrimPrefix(build.GoVersion, "go"), name)
		if build.Main.Path != "" {
			s.addModule(build.Main.Path, build.Main.Version, name)
		}
		for _, m := range build.Deps {
			if m.Replace != nil {
				m = m.Replace
			}
			s.addModule(m.Path, m.Version, name)
		}
		if len(s.found) > maxPackages {
			return errTooMany
		}
		return nil
	})
}

// A limitedReaderAt fails when left bytes have been read.
type limitedReaderAt struct {
	io.ReaderAt
	left int64
}

func (r *limitedReaderAt) ReadAt(p []byte, at int64) (int, error) {
	if r.left -= int64(len(p)); r.left < 0 {
		return 0, fmt.Errorf("more than %d bytes", maxProgram)
	}
	return r.ReaderAt.ReadAt(p, at)
}

func (s *scanner) addModule(name, version, file string) {
	if version == "(devel)" {
		version = ""
	}
	dir, base := path.Split(name)
	url := packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(dir, "/"), base, version, nil, "")
	s.found = append(s.found, Package{Name: name, Version: version, URL: url.ToString(), Source: "/" + file})
}
