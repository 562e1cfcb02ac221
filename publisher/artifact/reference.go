package artifact

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// scheme is the prefix of references to disks in registries.
const scheme = "oci://"

// IsReference reports whether a command line argument names a disk in a
// registry, not a file.
func IsReference(arg string) bool { return strings.HasPrefix(arg, scheme) }

// A Reference is a name in a registry, as REGISTRY/REPOSITORY[:TAG][@DIGEST].
type Reference struct {
	repository name.Repository
	tag        string // "" if there is none
	digest     string // "" if there is none
}

// ParseReference parses oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]. The tag of a
// reference without tag and digest is latest.
func ParseReference(text string) (Reference, error) {
	rest, found := strings.CutPrefix(text, scheme)
	if !found {
		return Reference{}, fmt.Errorf("invalid reference %q: write oci://REGISTRY/REPOSITORY:TAG", text)
	}
	invalid := func(err error) (Reference, error) {
		return Reference{}, fmt.Errorf("invalid reference %q: %w; write oci://REGISTRY/REPOSITORY:TAG or …@sha256:DIGEST", text, err)
	}
	// A reference with both has a tag for the reader, and the digest counts.
	rest, digest, pinned := strings.Cut(rest, "@")
	ref, err := name.ParseReference(rest)
	if err != nil {
		return invalid(err)
	}
	r := Reference{repository: ref.Context(), tag: ref.Identifier()}
	if pinned {
		if _, err := name.NewDigest(r.repository.Name() + "@" + digest); err != nil || !strings.HasPrefix(digest, "sha256:") {
			return invalid(fmt.Errorf("%q is not a SHA-256 digest", digest))
		}
		if !strings.Contains(rest[strings.LastIndexByte(rest, '/')+1:], ":") {
			r.tag = ""
		}
		r.digest = digest
	}
	return r, nil
}

// identifier returns what the registry is asked for: the digest if there is
// one, or the tag.
func (r Reference) identifier() string {
	if r.digest != "" {
		return r.digest
	}
	return r.tag
}

// Pinned reports whether the reference has a digest, so that it always means
// the same content.
func (r Reference) Pinned() bool { return r.digest != "" }

// String returns the reference with its scheme.
func (r Reference) String() string {
	text := scheme + r.repository.Name()
	if r.tag != "" {
		text += ":" + r.tag
	}
	if r.digest != "" {
		text += "@" + r.digest
	}
	return text
}
