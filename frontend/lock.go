package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v4"

	"github.com/slipway-build/slipway/machine"
)

// lockVersion is that of the lock's form.
const lockVersion = 1

// lock says what the references of a machine YAML stand for. It lies beside
// the YAML, as NAME.lock.yml.
type lock struct {
	name   string                   // of the file
	images map[string]digest.Digest // of manifest or index, by reference as people write it
	lines  map[string]int           // of the file
}

// LockRequest is the id of the request that is answered with a lock.
const LockRequest = "frontend.machine.lock"

// LockName is the file of a machine YAML's lock.
func LockName(filename string) string {
	return strings.TrimSuffix(filename, path.Ext(filename)) + ".lock.yml"
}

// familiar is an image's name as people write it.
func familiar(canonical string) string {
	named, err := reference.ParseNormalizedNamed(canonical)
	if err != nil {
		return canonical
	}
	return reference.FamiliarString(named)
}

// readLock reads the lock that came along with the machine YAML. There may be none.
func readLock(ctx context.Context, c client.Client, yml *dockerui.Source) (*lock, error) {
	name := LockName(yml.Filename)
	res, err := c.Solve(ctx, client.SolveRequest{Definition: yml.Definition.ToPB()})
	if err != nil {
		return nil, err
	}
	ref, err := res.SingleRef()
	if err != nil {
		return nil, err
	}
	data, err := dockerui.ReadFile(ctx, ref, name)
	if err != nil {
		if isNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	l, err := parseLock(name, data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; slipway lock %s writes it anew", name, err, yml.Filename)
	}
	return l, nil
}

func parseLock(name string, data []byte) (*lock, error) {
	var file struct {
		Version int       `yaml:"version"`
		Images  yaml.Node `yaml:"images"`
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if file.Version != lockVersion {
		return nil, fmt.Errorf("version %d is not the one that this frontend knows, %d", file.Version, lockVersion)
	}
	l := &lock{name: name, lines: map[string]int{}}
	if err := file.Images.Decode(&l.images); err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(file.Images.Content); i += 2 {
		l.lines[file.Images.Content[i].Value] = file.Images.Content[i].Line
	}
	for _, key := range slices.Sorted(maps.Keys(l.images)) {
		if err := l.images[key].Validate(); err != nil {
			return nil, fmt.Errorf("line %d: digest of %s: %w", l.lines[key], key, err)
		}
	}
	return l, nil
}

// text is the file. It is the same for the same images.
func (l *lock) text(yml string) []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "# What the images of %s are. \"slipway lock %s\" writes this file.\nversion: %d\nimages:\n", yml, yml, lockVersion)
	for _, key := range slices.Sorted(maps.Keys(l.images)) {
		fmt.Fprintf(&out, "  %s: %s\n", key, l.images[key])
	}
	return out.Bytes()
}

// pin adds to the name of an image the digest that it has in the lock, if there is one.
func (b *builder) pin(ref machine.ImageRef) (reference.Named, error) {
	named, err := reference.ParseNormalizedNamed(ref.Name)
	if err != nil {
		return nil, err
	}
	l, err := b.lock()
	if l == nil || err != nil {
		return named, err
	}
	key := familiar(ref.Name)
	d, ok := l.images[key]
	if !ok {
		return nil, fmt.Errorf("not in %s: slipway lock --update %s %s adds it", l.name, key, b.yaml().Filename)
	}
	return reference.WithDigest(named, d)
}

// references are all images of registries that a machine is made of, the frontend first.
func (b *builder) references(m *machine.Machine) []machine.ImageRef {
	refs := slices.Concat([]machine.ImageRef{b.frontendRef()}, m.AllImageRefs())
	return slices.DeleteFunc(refs, func(ref machine.ImageRef) bool { return strings.HasPrefix(ref.Name, "@pkg:") })
}

// checkLock refuses a lock that has more than the machine.
func (b *builder) checkLock(m *machine.Machine) error {
	l, err := b.lock()
	if l == nil || err != nil {
		return err
	}
	used := map[string]bool{}
	for _, ref := range b.references(m) {
		used[familiar(ref.Name)] = true
	}
	var unused []error
	for _, key := range slices.Sorted(maps.Keys(l.images)) {
		if !used[key] {
			unused = append(unused, fmt.Errorf("%s:%d: image %s is not in %s: slipway lock --update= %s takes it out of the lock",
				l.name, l.lines[key], key, b.yaml().Filename, b.yaml().Filename))
		}
	}
	return errors.Join(unused...)
}

// checkFrontend refuses to run when the lock names another frontend.
func (b *builder) checkFrontend(ctx context.Context, self *llb.State) error {
	ref := b.frontendRef()
	if scheme, _ := b.namedContext(ref.Name, b.ui.BuildPlatforms[0]); scheme != "" {
		return nil
	}
	named, err := b.pin(ref)
	if err != nil {
		return b.mistakes(ref, err)
	}
	want, ok := named.(reference.Digested)
	if !ok {
		return nil
	}
	def, err := self.Marshal(ctx)
	if err != nil {
		return err
	}
	for _, data := range def.Def {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return err
		}
		_, is, ok := strings.Cut(op.GetSource().GetIdentifier(), "@")
		if ok && is != want.Digest().String() {
			return b.mistakes(ref, fmt.Errorf("is now %s, but %s has %s: slipway lock --update %s %s renews it; to stay with the lock, write %s@%s there and in the YAML",
				is, LockName(b.yaml().Filename), want.Digest(), familiar(ref.Name), b.yaml().Filename, ref.Text, want.Digest()))
		}
	}
	return nil
}

// mistakes is one error about an image.
func (b *builder) mistakes(ref machine.ImageRef, err error) error {
	return machine.Diagnostics{b.mistake(ref.Range, "image %s: %v", ref.Text, err)}
}

// LockUpdate is the build argument that names the images to look up again.
const LockUpdate = "LOCK_UPDATE"

// writeLock answers with the text of the lock.
func (b *builder) writeLock(ctx context.Context) (*client.Result, error) {
	m, err := b.parse()
	if err != nil {
		return nil, err
	}
	targets := b.ui.TargetPlatforms
	if len(targets) == 0 {
		targets = []ocispecs.Platform{b.target(nil)}
	}
	before := &lock{}
	names, partly := b.ui.BuildArgs[LockUpdate]
	if partly {
		if l, err := b.lock(); err != nil {
			return nil, err
		} else if l != nil {
			before = l
		}
	}
	refs := b.references(m)
	renewed, err := chosenImages(names, refs)
	if err != nil {
		return nil, err
	}
	after := &lock{images: map[string]digest.Digest{}}
	var mu sync.Mutex
	var all sync.WaitGroup
	var diags machine.Diagnostics
	for _, ref := range refs {
		key := familiar(ref.Name)
		if was, ok := before.images[key]; ok && !renewed[key] {
			after.images[key] = was
			continue
		}
		if scheme, _ := b.namedContext(ref.Name, targets[0]); scheme != "" {
			continue // the user's own
		}
		all.Go(func() {
			found, err := b.lockImage(ctx, ref, targets)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				diags = append(diags, b.mistake(ref.Range, "image %s: %v", ref.Text, err))
			}
			after.images[key] = found
		})
	}
	all.Wait()
	if err := sorted(diags); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(struct {
		Version int                      `json:"version"`
		Images  map[string]digest.Digest `json:"images"`
	}{lockVersion, after.images}, "", "  ")
	if err != nil {
		return nil, err
	}
	return result(data, after.text(path.Base(b.yaml().Filename)), "1.0.0"), nil
}

// chosenImages finds the images that the user named, with or without tag.
func chosenImages(names string, refs []machine.ImageRef) (map[string]bool, error) {
	chosen := map[string]bool{}
	var known []string
	for _, ref := range refs {
		known = append(known, familiar(ref.Name))
	}
	for _, name := range strings.FieldsFunc(names, func(r rune) bool { return r == ',' }) {
		found := false
		for _, key := range known {
			named, err := reference.ParseNormalizedNamed(key)
			if key == name || err == nil && reference.FamiliarName(named) == name {
				chosen[key], found = true, true
			}
		}
		if !found {
			return nil, fmt.Errorf("the machine has no image %s%s (images: %s)", name, machine.Suggest(name, known), strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// lockImage asks the registry what a reference stands for. The digest of an
// index fixes the manifests of all its platforms; those asked for must be among them.
func (b *builder) lockImage(ctx context.Context, ref machine.ImageRef, targets []ocispecs.Platform) (digest.Digest, error) {
	named, err := reference.ParseNormalizedNamed(ref.Name)
	if err != nil {
		return "", err
	}
	if ref.Name == b.frontendRef().Name {
		targets = b.ui.BuildPlatforms[:1] // where it runs
	}
	var found digest.Digest
	for _, p := range targets {
		p = platforms.Normalize(p)
		res, _, err := b.metadata(ctx, ref, named, sourceresolver.ResolveImageOpt{Platform: &p})
		if err != nil {
			return "", err
		}
		if found != "" && found != res.Digest {
			return "", errors.New("has changed while it was looked up: try again")
		}
		found = res.Digest
	}
	return found, nil
}
