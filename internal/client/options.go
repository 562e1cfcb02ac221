package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/platforms"
	"github.com/docker/cli/cli/config"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/ociindex"
	"github.com/moby/buildkit/cmd/buildctl/build"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/session/sshforward/sshprovider"
	"github.com/moby/buildkit/solver/pb"
	policy "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

// Options are those of docker buildx build, each as it is written there.
type Options struct {
	File    string // the machine YAML
	Context string // folder of the build context

	Target        string
	BuildArgs     map[string]string
	BuildContexts map[string]string // by name
	Attests       map[string]string // attributes of sbom and provenance
	CacheFrom     []string
	CacheTo       []string
	NoCache       bool
	NoCacheFilter []string
	Outputs       []string
	Platforms     []string
	Pull          bool
	Secrets       []string
	SSH           []string
}

// solve gives what BuildKit's client takes, but for the exports.
func (o Options) solve() (client.SolveOpt, error) {
	context, err := filepath.Abs(o.Context)
	if err != nil {
		return client.SolveOpt{}, err
	}
	so := client.SolveOpt{
		SharedKey:     context,
		FrontendAttrs: map[string]string{"filename": filepath.Base(o.File)},
		LocalMounts:   map[string]fsutil.FS{},
		OCIStores:     map[string]content.Store{},
	}
	attrs := so.FrontendAttrs
	for name, dir := range map[string]string{"context": context, "dockerfile": filepath.Dir(o.File)} {
		if so.LocalMounts[name], err = fsutil.NewFS(dir); err != nil {
			return so, err
		}
	}
	for name, value := range o.BuildContexts {
		if attrs["context:"+name], err = addContext(&so, name, value); err != nil {
			return so, fmt.Errorf("--build-context %s: %w", name, err)
		}
	}
	for name, value := range o.BuildArgs {
		attrs["build-arg:"+name] = value
	}
	for name, value := range o.Attests {
		attrs["attest:"+name] = value
	}
	if o.Target != "" {
		attrs["target"] = o.Target
	}
	if len(o.NoCacheFilter) > 0 {
		attrs["no-cache"] = strings.Join(o.NoCacheFilter, ",")
	}
	if o.NoCache {
		attrs["no-cache"] = ""
	}
	if o.Pull {
		attrs["image-resolve-mode"] = pb.AttrImageResolveModeForcePull
	}
	if len(o.Platforms) > 0 {
		all, err := platforms.ParseAll(o.Platforms)
		if err != nil {
			return so, fmt.Errorf("--platform: %w", err)
		}
		for i, p := range all {
			o.Platforms[i] = platforms.FormatAll(platforms.Normalize(p))
		}
		attrs["platform"] = strings.Join(o.Platforms, ",")
	}
	if so.CacheImports, err = build.ParseImportCache(caches(o.CacheFrom)); err != nil {
		return so, fmt.Errorf("--cache-from: %w", err)
	}
	if so.CacheExports, err = build.ParseExportCache(caches(o.CacheTo)); err != nil {
		return so, fmt.Errorf("--cache-to: %w", err)
	}
	if so.SourcePolicy, err = sourcePolicy(); err != nil {
		return so, err
	}
	so.Session, err = o.session()
	return so, err
}

// sourcePolicy reads the file that docker buildx takes too.
func sourcePolicy() (*policy.Policy, error) {
	const variable = "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"
	path := os.Getenv(variable)
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", variable, err)
	}
	var p policy.Policy
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("%s: %s: %w", variable, path, err)
	}
	return &p, nil
}

// caches names the type where only an image is named, as docker buildx does.
func caches(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		if !strings.Contains(v, "=") {
			v = "type=registry,ref=" + v
		}
		out[i] = v
	}
	return out
}

// session is what BuildKit asks of the user's side during the build.
func (o Options) session() ([]session.Attachable, error) {
	registries := authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(config.LoadDefaultConfigFile(os.Stderr)),
	}
	session := []session.Attachable{authprovider.NewDockerAuthProvider(registries)}
	secrets, err := build.ParseSecret(o.Secrets)
	if err != nil {
		return nil, fmt.Errorf("--secret: %w", err)
	}
	session = append(session, secrets)
	if len(o.SSH) > 0 {
		agents, err := build.ParseSSH(o.SSH)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		forwarded, err := sshprovider.NewSSHAgentProvider(agents)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		session = append(session, forwarded)
	}
	return session, nil
}

// addContext makes a named context available and returns what the frontend
// finds it by.
func addContext(so *client.SolveOpt, name, value string) (string, error) {
	layout, ok := strings.CutPrefix(value, "oci-layout://")
	switch {
	case ok:
		return addLayout(so, layout)
	case strings.Contains(value, "://") || strings.HasPrefix(value, "git@"):
		return value, nil
	}
	if info, err := os.Stat(value); err != nil {
		return "", err
	} else if !info.IsDir() {
		return "", fmt.Errorf("%s is not a folder", value)
	}
	fs, err := fsutil.NewFS(value)
	if err != nil {
		return "", err
	}
	mount := "context:" + name // none of the names that the frontend asks for itself
	so.LocalMounts[mount] = fs
	return "local:" + mount, nil
}

// addLayout makes an OCI image layout available: PATH, PATH:TAG or PATH@DIGEST.
func addLayout(so *client.SolveOpt, layout string) (string, error) {
	path, pinned, _ := strings.Cut(layout, "@")
	tag := "latest"
	if i := strings.LastIndexByte(path, ':'); i > strings.LastIndexByte(path, '/') {
		path, tag = path[:i], path[i+1:]
	}
	if pinned == "" {
		index := ociindex.NewStoreIndex(path)
		desc, err := index.Get(tag)
		if err == nil && desc == nil {
			desc, err = index.GetSingle()
		}
		if err != nil {
			return "", err
		}
		if desc == nil {
			return "", fmt.Errorf("%s holds several images and none with tag %s: add :TAG or @DIGEST", path, tag)
		}
		pinned = desc.Digest.String()
	}
	if _, err := digest.Parse(pinned); err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", err // a store would be made there
	}
	store, err := local.NewStore(path)
	if err != nil {
		return "", errors.New("not an OCI image layout")
	}
	id := identity.NewID()
	so.OCIStores[id] = store
	return "oci-layout://" + id + "@" + pinned, nil
}
