package gatewaytest

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"

	distref "github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	digest "github.com/opencontainers/go-digest"
	fstypes "github.com/tonistiigi/fsutil/types"
)

// A graph is a definition that was checked.
type graph struct {
	ops  map[digest.Digest]*pb.Op
	head *pb.Input // the result; nil for an empty one
}

// check decodes a definition and checks what BuildKit checks when it loads one.
func (g *Gateway) check(def *pb.Definition) (*graph, error) {
	out := &graph{ops: map[digest.Digest]*pb.Op{}}
	if def == nil {
		return nil, errors.New("no definition")
	}
	caps := g.caps()
	for i, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return nil, err
		}
		for _, in := range op.Inputs {
			if out.ops[digest.Digest(in.Digest)] == nil {
				return nil, fmt.Errorf("vertex %d reads %s, which does not come before it", i, in.Digest)
			}
		}
		d := digest.FromBytes(data)
		for id := range def.Metadata[d.String()].GetCaps() {
			if err := caps.Supports(apicaps.CapID(id)); err != nil {
				return nil, err
			}
		}
		if op.Op == nil {
			if i != len(def.Def)-1 || len(op.Inputs) != 1 {
				return nil, fmt.Errorf("vertex %d does nothing", i)
			}
			out.head = op.Inputs[0]
			continue
		}
		if src := op.GetSource(); src != nil {
			if err := g.checkSource(src); err != nil {
				return nil, err
			}
		}
		out.ops[d] = &op
	}
	if len(def.Def) > 0 && out.head == nil {
		return nil, errors.New("no result")
	}
	for d, locations := range def.GetSource().GetLocations() {
		for _, l := range locations.Locations {
			if err := checkRanges(def.Source.Infos[l.SourceIndex], l.Ranges); err != nil {
				return nil, fmt.Errorf("location of %s: %w", d, err)
			}
		}
	}
	return out, nil
}

func (g *Gateway) checkSource(src *pb.SourceOp) error {
	scheme, name, _ := strings.Cut(src.Identifier, "://")
	switch scheme {
	case "local":
		if g.Locals[name] == nil {
			return fmt.Errorf("local source %q is not in the session", name)
		}
		if src.Attrs[pb.AttrLocalSessionID] != Session {
			return fmt.Errorf("local source %q is of session %q", name, src.Attrs[pb.AttrLocalSessionID])
		}
	case "docker-image":
		if g.Classic[name] != nil {
			return nil
		}
		_, err := g.image(name)
		return err
	case "docker-image+blob", "oci-layout+blob":
		_, _, err := g.blob(src)
		return err
	case "oci-layout":
		if g.Layouts[src.Attrs[pb.AttrOCILayoutStoreID]] == nil || src.Attrs[pb.AttrOCILayoutSessionID] != Session {
			return fmt.Errorf("OCI layout %q is not in the session", src.Attrs[pb.AttrOCILayoutStoreID])
		}
	default:
		return fmt.Errorf("source %q", src.Identifier)
	}
	return nil
}

// blob finds a blob in the repository or OCI layout that a source names.
func (g *Gateway) blob(src *pb.SourceOp) (digest.Digest, []byte, error) {
	_, name, _ := strings.Cut(src.Identifier, "://")
	named, err := distref.ParseNormalizedNamed(name)
	if err != nil {
		return "", nil, err
	}
	digested, ok := named.(distref.Digested)
	if !ok {
		return "", nil, fmt.Errorf("blob %s has no digest", name)
	}
	all := maps.Values(g.Images)
	if strings.HasPrefix(src.Identifier, "oci-layout") {
		all = maps.Values(map[string]*Image{"": g.Layouts[src.Attrs[pb.AttrOCILayoutStoreID]]})
	}
	for i := range all {
		if i != nil && i.Blobs[digested.Digest()] != nil {
			return digested.Digest(), i.Blobs[digested.Digest()], nil
		}
	}
	return "", nil, fmt.Errorf("blob %s: not found", name)
}

// solveDockerfile answers for BuildKit's Dockerfile frontend.
func (g *Gateway) solveDockerfile(req client.SolveRequest) (*client.Result, error) {
	if req.Frontend != "dockerfile.v0" || g.Dockerfile == nil {
		return nil, g.violation("frontend %q", req.Frontend)
	}
	inputs := map[string]Files{}
	for name, def := range req.FrontendInputs {
		graph, err := g.check(def)
		if err != nil {
			return nil, g.violation("input %s: %w", name, err)
		}
		if inputs[name], err = g.files(graph, graph.head); err != nil {
			return nil, err
		}
	}
	file := path.Join(req.FrontendOpt["filename"])
	if _, ok := inputs["dockerfile"][file]; !ok {
		return nil, fmt.Errorf("failed to read dockerfile: open %s: no such file or directory", file)
	}
	config, err := g.Dockerfile(req.FrontendOpt, inputs["context"])
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	def, err := llb.Scratch().File(llb.Mkfile("/built", 0o644, data)).Marshal(context.Background())
	if err != nil {
		return nil, err
	}
	graph, err := g.check(def.ToPB())
	if err != nil {
		return nil, err
	}
	res := client.NewResult()
	res.SetRef(&reference{g, def.ToPB(), graph})
	res.AddMeta(exptypes.ExporterImageConfigKey, data)
	return res, nil
}

// files returns the files of a vertex.
func (g *Gateway) files(graph *graph, in *pb.Input) (Files, error) {
	if in == nil {
		return Files{}, nil
	}
	op := graph.ops[digest.Digest(in.Digest)]
	inputs := make([]Files, len(op.Inputs))
	for i := range op.Inputs {
		if op.GetExec() != nil {
			continue // the test provides the result
		}
		var err error
		if inputs[i], err = g.files(graph, op.Inputs[i]); err != nil {
			return nil, err
		}
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		return g.sourceFiles(o.Source)
	case *pb.Op_Merge:
		out := Files{}
		for _, files := range inputs {
			maps.Copy(out, files)
		}
		return out, nil
	case *pb.Op_File:
		return g.fileOp(o.File, inputs, in.Index)
	case *pb.Op_Exec:
		if g.Run == nil {
			return nil, g.violation("nothing should run, but did: %q", o.Exec.Meta.Args)
		}
		return g.Run(o.Exec)
	}
	return nil, g.violation("vertex %T", op.Op)
}

func (g *Gateway) sourceFiles(src *pb.SourceOp) (Files, error) {
	scheme, name, _ := strings.Cut(src.Identifier, "://")
	switch scheme {
	case "local":
		return selectFiles(g.Locals[name], src.Attrs)
	case "docker-image+blob", "oci-layout+blob":
		d, data, err := g.blob(src)
		return Files{d.Encoded(): string(data)}, err
	}
	return nil, g.violation("files of %s", src.Identifier)
}

// selectFiles returns the files that a client sends. Patterns are paths of files
// or folders.
func selectFiles(all Files, attrs map[string]string) (Files, error) {
	lists := map[string][]string{}
	for _, key := range []string{pb.AttrFollowPaths, pb.AttrIncludePatterns, pb.AttrExcludePatterns} {
		var list []string
		if attrs[key] != "" {
			if err := json.Unmarshal([]byte(attrs[key]), &list); err != nil {
				return nil, err
			}
		}
		lists[key] = list
	}
	under := func(name string, list []string) bool {
		for _, p := range list {
			if name == p || p == "." || strings.HasPrefix(name, p+"/") {
				return true
			}
		}
		return false
	}
	selected := append(lists[pb.AttrFollowPaths], lists[pb.AttrIncludePatterns]...)
	out := Files{}
	for name, text := range all {
		if (len(selected) == 0 || under(name, selected)) && !under(name, lists[pb.AttrExcludePatterns]) {
			out[name] = text
		}
	}
	return out, nil
}

// fileOp executes the actions that frontends use: mkfile and copy.
func (g *Gateway) fileOp(op *pb.FileOp, inputs []Files, output int64) (Files, error) {
	results := map[int64]Files{}
	get := func(i int64) Files {
		switch {
		case i < 0:
			return Files{}
		case i < int64(len(inputs)):
			return inputs[i]
		}
		return results[i]
	}
	for i, action := range op.Actions {
		out := maps.Clone(get(action.Input))
		switch a := action.Action.(type) {
		case *pb.FileAction_Mkfile:
			out[strings.TrimPrefix(a.Mkfile.Path, "/")] = string(a.Mkfile.Data)
		case *pb.FileAction_Copy:
			src := strings.Trim(a.Copy.Src, "/")
			if text, ok := get(action.SecondaryInput)[src]; ok && a.Copy.AttemptUnpackDockerCompatibility {
				if err := g.unpack(text, out); err != nil {
					return nil, err
				}
				break
			}
			for name, text := range get(action.SecondaryInput) {
				rest, ok := strings.CutPrefix("/"+name, path.Join("/", src)+"/")
				if src == "" {
					rest, ok = name, true
				}
				if ok {
					out[strings.TrimPrefix(path.Join(a.Copy.Dest, rest), "/")] = text
				}
			}
		default:
			return nil, fmt.Errorf("file action %T", action.Action)
		}
		results[int64(len(inputs)+i)] = out
		if action.Output == output {
			return out, nil
		}
	}
	return nil, fmt.Errorf("no output %d", output)
}

// unpack adds the files of a tar archive, as far as it is one.
func (g *Gateway) unpack(archive string, out Files) error {
	for r := tar.NewReader(strings.NewReader(archive)); ; {
		h, err := r.Next()
		if err != nil {
			return nil
		}
		if g.Rootless && (h.Typeflag == tar.TypeChar || h.Typeflag == tar.TypeBlock) {
			return errors.New("operation not permitted")
		}
		out[h.Name] = ""
	}
}

// reference is the result of a solved definition.
type reference struct {
	g     *Gateway
	def   *pb.Definition
	graph *graph
}

func (r *reference) files() (Files, error) { return r.g.files(r.graph, r.graph.head) }

// ToState implements [client.Reference].
func (r *reference) ToState() (llb.State, error) {
	op, err := llb.NewDefinitionOp(r.def)
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

// Evaluate implements [client.Reference].
func (r *reference) Evaluate(context.Context) error {
	_, err := r.files()
	return err
}

// notFound is such an error after its way through gRPC, which keeps the text.
func notFound(op, name string) error {
	return errors.New((&fs.PathError{Op: op, Path: name, Err: errors.New("no such file or directory")}).Error())
}

// ReadFile implements [client.Reference].
func (r *reference) ReadFile(_ context.Context, req client.ReadRequest) ([]byte, error) {
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	text, ok := files[strings.TrimPrefix(req.Filename, "/")]
	if !ok {
		return nil, notFound("open", req.Filename)
	}
	if req.Range != nil {
		start := min(req.Range.Offset, len(text))
		text = text[start:min(start+req.Range.Length, len(text))]
	}
	return []byte(text), nil
}

// StatFile implements [client.Reference].
func (r *reference) StatFile(_ context.Context, req client.StatRequest) (*fstypes.Stat, error) {
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	name := strings.TrimPrefix(req.Path, "/")
	if text, ok := files[name]; ok {
		return &fstypes.Stat{Path: name, Mode: 0o644, Size: int64(len(text))}, nil
	}
	for other := range files {
		if strings.HasPrefix(other, name+"/") {
			return &fstypes.Stat{Path: name, Mode: uint32(fs.ModeDir | 0o755)}, nil
		}
	}
	return nil, notFound("stat", req.Path)
}

// ReadDir implements [client.Reference].
func (r *reference) ReadDir(_ context.Context, req client.ReadDirRequest) ([]*fstypes.Stat, error) {
	files, err := r.files()
	if err != nil {
		return nil, err
	}
	dir := path.Join(".", strings.TrimPrefix(req.Path, "/"))
	var out []*fstypes.Stat
	for name, text := range files {
		if path.Dir(name) != dir {
			continue
		}
		if ok, err := path.Match(req.IncludePattern, path.Base(name)); req.IncludePattern != "" && (err != nil || !ok) {
			continue
		}
		out = append(out, &fstypes.Stat{Path: path.Base(name), Mode: 0o644, Size: int64(len(text))})
	}
	if len(out) == 0 {
		return nil, notFound("open", req.Path)
	}
	return out, nil
}
