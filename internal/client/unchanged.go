package client

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"
)

// A build whose graph is the same as that of the files in its folder gives these
// files again: its images are named by digest and its steps are pure. So each
// file remembers the graph, and nothing is built or sent until that is another
// one, or a file is not as it was.

// origin is what a file remembers of its build, as JSON in the extended
// attribute originAttr.
type origin struct {
	Graph string // digest
	Files []madeFile
}

type madeFile struct {
	Name  string
	Size  int64
	MTime time.Time
}

const originAttr = "user.slipway.origin"

// folder is where files remember, or empty where nothing may be left undone.
func (opt Options) folder(all outputs) string {
	if len(all) != 1 || all[0].kind != client.ExporterLocal || len(all[0].attrs) > 0 ||
		len(opt.CacheTo) > 0 || len(opt.Attests) > 0 || opt.NoCache || len(opt.NoCacheFilter) > 0 {
		return ""
	}
	return all[0].dest
}

// unchanged finds the files that a graph made in a folder, if they are all as they were.
func unchanged(folder, graph string) []File {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if o, ok := readOrigin(filepath.Join(folder, e.Name())); ok && o.Graph == graph {
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
		if its, ok := readOrigin(path); !ok || its.Graph != o.Graph {
			return nil
		}
		files = append(files, File{path, f.Size})
	}
	return files
}

func readOrigin(path string) (o origin, ok bool) {
	buf := make([]byte, 64<<10)
	n, err := unix.Lgetxattr(path, originAttr, buf)
	return o, err == nil && json.Unmarshal(buf[:n], &o) == nil
}

// remember notes in files of a folder which graph made them. A file system
// without extended attributes does not remember.
func remember(folder, graph string, files []File) error {
	o := origin{Graph: graph}
	for _, f := range files {
		name, err := filepath.Rel(folder, f.Path)
		if err != nil {
			return err
		}
		info, err := os.Lstat(f.Path)
		if err != nil {
			return err
		}
		o.Files = append(o.Files, madeFile{name, info.Size(), info.ModTime()})
	}
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	for _, f := range files {
		_ = unix.Lsetxattr(f.Path, originAttr, data, 0)
	}
	return nil
}

// graphs is a client that knows the graphs of its results.
type graphs struct {
	gateway.Client
	mu    sync.Mutex
	known map[gateway.Reference]string
}

func (g *graphs) Solve(ctx context.Context, req gateway.SolveRequest) (*gateway.Result, error) {
	res, err := g.Client.Solve(ctx, req)
	if err != nil || req.Definition == nil || !pure(req.Definition) {
		return res, err
	}
	if ref, err := res.SingleRef(); err == nil && ref != nil {
		defer g.mu.Unlock()
		g.mu.Lock()
		// The last operation has the digests of those before it.
		ops := req.Definition.Def
		g.known[ref] = fmt.Sprintf("sha256:%x", sha256.Sum256(ops[len(ops)-1]))
	}
	return res, nil
}

// pure tells whether a graph always has the same result.
func pure(def *pb.Definition) bool {
	for _, data := range def.Def {
		var op pb.Op
		if op.UnmarshalVT(data) != nil {
			return false
		}
		if s := op.GetSource(); s != nil && !pinned(s.Identifier) {
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

// pinned tells whether a source is named by its digest.
func pinned(source string) bool {
	scheme, name, _ := strings.Cut(source, "://")
	switch scheme {
	case "docker-image", "docker-image+blob", "oci-layout", "oci-layout+blob":
		ref, err := reference.ParseNormalizedNamed(name)
		_, ok := ref.(reference.Digested)
		return err == nil && ok
	}
	return false
}
