package client

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/continuity/sysx"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sync/semaphore"

	"github.com/slipway-build/slipway/frontend"
)

// reuse is a build that keeps the files of an earlier build with the same graph,
// or otherwise writes them in this process. The images in a graph are pinned by
// digest and its steps are deterministic, so the same graph writes the same
// files. Nothing is built or transferred as long as neither the graph nor the
// files change.
type reuse struct {
	folder  string // of the files; empty if they cannot be reused
	staging string // where this process writes them; empty if it does not
	store   *store // nil if there is none

	graph  string // digest; empty if the graph does not determine the files
	inputs string // digest; empty if the inputs do not determine the files
	files  []File // of the earlier build; nil if there are none
}

// openStore opens the store for files that can be reused. Without a store, for
// example in a container without a home folder, BuildKit writes the files.
func (r *reuse) openStore(all outputs) {
	if r.folder == "" {
		return
	}
	if s, err := openStore(); err == nil {
		r.store, r.staging = s, all[0].staging
	}
}

func (r *reuse) close() {
	if r.store != nil {
		_ = r.store.close() // the files are complete; the next build removes parts
	}
}

// reusableFolder returns the output folder, or "" if the build has other effects
// than its files or must not be skipped.
func (o Options) reusableFolder(all outputs) string {
	if len(all) != 1 || all[0].kind != client.ExporterLocal || len(all[0].attrs) > 0 ||
		len(o.CacheTo) > 0 || len(o.Attests) > 0 || o.NoCache || len(o.NoCacheFilter) > 0 {
		return ""
	}
	return all[0].dest
}

// unchanged reports whether the files of a build with the same inputs exist.
// Nothing asks BuildKit about images then.
func (r *reuse) unchanged() bool {
	if r.inputs != "" {
		r.files = findFiles(r.folder, func(o origin) bool { return o.Inputs == r.inputs })
	}
	return r.files != nil
}

// build is a [gateway.BuildFunc]. Its result is empty if the files exist.
func (r *reuse) build(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
	if r.folder == "" {
		return frontend.Build(ctx, c)
	}
	return frontend.BuildLocal(ctx, c, r)
}

// Write implements [frontend.Writer].
func (r *reuse) Write(ctx context.Context, l *frontend.Local) (bool, error) {
	if isDeterministic(l.Graph) {
		r.graph = graphDigest(l.Graph)
		if r.files = findFiles(r.folder, func(o origin) bool { return o.Graph == r.graph }); r.files != nil {
			return true, nil
		}
	}
	if l.Writes == nil || r.store == nil {
		return false, nil
	}
	writes, err := l.Writes()
	if err != nil {
		return false, err
	}
	scratch, err := os.MkdirTemp(filepath.Dir(r.staging), ".slipway-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(scratch)
	w := &formatWriter{Local: l, store: r.store, scratch: scratch, reads: semaphore.NewWeighted(maxReads)}
	return true, w.write(ctx, writes, r.staging)
}

// origin describes the build of a file. It is stored as JSON in the extended
// attribute originAttr of each file.
type origin struct {
	Graph  string // digest
	Inputs string `json:",omitzero"` // digest
	Files  []writtenFile
}

// A writtenFile is a file of a build.
type writtenFile struct {
	Name  string
	Size  int64
	MTime time.Time
}

const originAttr = "user.slipway.origin"

// record stores in the files which graph and which inputs they are from. On a
// filesystem without extended attributes it has no effect.
func (r *reuse) record(files []File) error {
	if r.graph == "" && r.inputs == "" {
		return nil
	}
	o := origin{Graph: r.graph, Inputs: r.inputs}
	for _, f := range files {
		name, err := filepath.Rel(r.folder, f.Path)
		if err != nil {
			return err
		}
		info, err := os.Lstat(f.Path)
		if err != nil {
			return err
		}
		o.Files = append(o.Files, writtenFile{name, info.Size(), info.ModTime()})
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	for _, f := range files {
		_ = sysx.LSetxattr(f.Path, originAttr, data, 0)
	}
	return nil
}

// findFiles returns the files in a folder from a build, or nil if one of them is
// missing or has changed.
func findFiles(folder string, from func(origin) bool) []File {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if o, ok := readOrigin(filepath.Join(folder, e.Name())); ok && from(o) {
			return o.files(folder)
		}
	}
	return nil
}

func (o origin) files(folder string) []File {
	var files []File
	for _, f := range o.Files {
		path := filepath.Join(folder, f.Name)
		info, err := os.Lstat(path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size || !info.ModTime().Equal(f.MTime) {
			return nil
		}
		if other, ok := readOrigin(path); !ok || other.Graph != o.Graph || other.Inputs != o.Inputs {
			return nil
		}
		files = append(files, File{path, f.Size})
	}
	return files
}

func readOrigin(path string) (o origin, ok bool) {
	data, err := sysx.LGetxattr(path, originAttr)
	return o, err == nil && json.Unmarshal(data, &o) == nil
}

// graphDigest returns the digest of a graph. Its last operation contains the
// digests of all others.
func graphDigest(def *pb.Definition) string {
	return fmt.Sprintf("sha256:%x", sha256.Sum256(def.Def[len(def.Def)-1]))
}

// isDeterministic reports whether a graph always has the same result.
func isDeterministic(def *pb.Definition) bool {
	for _, data := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(data) != nil {
			return false
		}
		if s := op.GetSource(); s != nil && !isPinned(s.Identifier) {
			return false
		}
		if op.GetBuild() != nil {
			return false
		}
		for _, m := range op.GetExec().GetMounts() {
			if m.MountType != pb.MountType_BIND {
				return false
			}
		}
	}
	return len(def.Def) > 0
}

// isStorable reports whether other builds can have a graph and it always has the
// same result. The stores of OCI layouts have other names in each build.
func isStorable(def *pb.Definition) bool {
	for _, data := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(data) != nil || strings.HasPrefix(op.GetSource().GetIdentifier(), "oci-layout") {
			return false
		}
	}
	return isDeterministic(def)
}

// isPinned reports whether a source is named by its digest.
func isPinned(source string) bool {
	scheme, name, _ := strings.Cut(source, "://")
	switch scheme {
	case "docker-image", "docker-image+blob", "oci-layout", "oci-layout+blob":
		ref, err := reference.ParseNormalizedNamed(name)
		_, ok := ref.(reference.Digested)
		return err == nil && ok
	}
	return false
}
