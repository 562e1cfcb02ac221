package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"os"
	"path"
	"path/filepath"
)

// A member is a file in an archive.
type member struct {
	name string
	file string // which has its contents
	mode int64
}

// archiveName returns the name of an archive without its suffix.
func (r *release) archiveName(p platform) string {
	return "slipway_" + r.version + "_" + p.os + "_" + p.arch
}

// archive writes the archive for a platform.
func (r *release) archive(p platform, extras []extra) error {
	name := r.archiveName(p)
	var members []member
	for _, program := range programs {
		program = p.program(program)
		members = append(members, member{path.Join(name, program), filepath.Join(r.programFolder(p), program), 0o755})
	}
	for _, e := range extras {
		members = append(members, member{path.Join(name, e.archive), e.file, 0o644})
	}
	if p.os == "windows" {
		return r.zip(name+".zip", members)
	}
	return r.tar(name+".tar.gz", members)
}

// tar writes a compressed tar archive.
func (r *release) tar(name string, members []member) error {
	return r.create(name, func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
		if err != nil {
			return err
		}
		out := tar.NewWriter(z)
		for _, m := range members {
			err := m.copy(func(size int64) (io.Writer, error) {
				return out, out.WriteHeader(&tar.Header{Name: m.name, Mode: m.mode, Size: size, ModTime: r.time, Format: tar.FormatUSTAR})
			})
			if err != nil {
				return err
			}
		}
		if err := out.Close(); err != nil {
			return err
		}
		return z.Close()
	})
}

// zip writes a zip archive.
func (r *release) zip(name string, members []member) error {
	return r.create(name, func(w io.Writer) error {
		out := zip.NewWriter(w)
		for _, m := range members {
			err := m.copy(func(int64) (io.Writer, error) {
				header := &zip.FileHeader{Name: m.name, Method: zip.Deflate, Modified: r.time}
				header.SetMode(os.FileMode(m.mode))
				return out.CreateHeader(header)
			})
			if err != nil {
				return err
			}
		}
		return out.Close()
	})
}

// create writes a file of the release.
func (r *release) create(name string, write func(io.Writer) error) error {
	f, err := os.Create(filepath.Join(r.out, name))
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// copy writes the contents of the member to the writer that header returns for
// their size.
func (m member) copy(header func(size int64) (io.Writer, error)) error {
	f, err := os.Open(m.file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	w, err := header(info.Size())
	if err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
