package ami

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/slipway-build/slipway/publisher/disk"
)

// maxListed is the number of secrets that warnings and errors list.
const maxListed = 10

// secrets are those of the disk that Options.AllowSecrets does not name.
type secrets struct {
	mu     sync.Mutex
	read   bool
	found  []disk.Secret
	unread []string
}

// secretsOf searches the disk, once.
func (p *Publisher) secretsOf(ctx context.Context) (found []disk.Secret, unread []string, err error) {
	s := &p.secrets
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.read {
		return s.found, s.unread, nil
	}
	found, unread, err = p.disk.Secrets(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, &Error{ClassDisk, fmt.Errorf("look for secrets: %w", err)}
	}
	s.found = slices.DeleteFunc(found, func(secret disk.Secret) bool { return p.options.allows(secret.Path) })
	s.unread, s.read = unread, true
	return s.found, s.unread, nil
}

// allows reports whether AllowSecrets names a path or a directory above it.
func (o *Options) allows(file string) bool {
	return slices.ContainsFunc(o.AllowSecrets, func(allowed string) bool {
		allowed = strings.TrimPrefix(path.Clean("/"+allowed), "/")
		return file == allowed || strings.HasPrefix(file, allowed+"/")
	})
}

// SecretWarnings returns warnings about secrets on the disk, one line each. If
// the image is shared, some are about what could not be searched. It reads the disk. [Publisher.Publish] fails
// if Options.Share has "all" and there are secrets.
func (p *Publisher) SecretWarnings(ctx context.Context) ([]string, error) {
	found, unread, err := p.secretsOf(ctx)
	if err != nil {
		return nil, err
	}
	var warnings []string
	for _, s := range found {
		if !s.Declared || p.options.sharesWithAll() {
			warnings = append(warnings, s.String())
		}
	}
	warnings = abridge(warnings)
	if len(p.options.Share) > 0 {
		warnings = append(warnings, abridge(unread)...)
	}
	return warnings, nil
}

// checkSecrets fails if everyone could read secrets.
func (p *Publisher) checkSecrets(ctx context.Context) error {
	if !p.options.sharesWithAll() {
		return nil
	}
	found, _, err := p.secretsOf(ctx)
	if err != nil || len(found) == 0 {
		return err
	}
	var list []string
	for _, s := range found {
		list = append(list, s.String())
	}
	return fail(ClassDisk, "%s has secrets that --share all would publish: %s; remove them and build the disk again, or add --allow-secret %q",
		p.disk.Name, strings.Join(abridge(list), ", "), found[0].Path)
}

// abridge returns the first lines, and a count of the others.
func abridge(lines []string) []string {
	if more := len(lines) - maxListed; more > 0 {
		return append(slices.Clone(lines[:maxListed]), fmt.Sprintf("and %d more", more))
	}
	return lines
}
