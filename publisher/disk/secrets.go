package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/slipway-build/slipway/exporter/cpio"
	exporterdisk "github.com/slipway-build/slipway/exporter/disk"
	"github.com/slipway-build/slipway/exporter/erofs"
	"github.com/slipway-build/slipway/exporter/fat"
	"github.com/slipway-build/slipway/exporter/squashfs"
	"github.com/slipway-build/slipway/exporter/tree"
)

// A Secret is something on a disk that whoever can read the disk can abuse.
type Secret struct {
	// Path is that of the file on the EFI system partition or in the initramfs,
	// without leading slash.
	Path string `json:"path"`
	// What is the kind of secret. It does not contain the secret.
	What string `json:"what"`
	// Declared is set for what the YAML of a machine declares, such as keys of
	// users, and matters only if everyone can read the disk.
	Declared bool `json:"declared,omitempty"`
}

func (s Secret) String() string { return fmt.Sprintf("%q: %s", s.Path, s.What) }

// Limits of Secrets.
const (
	maxSecrets   = 1000
	maxSearched  = 1 << 20 // bytes of a file whose content is searched
	maxInitramfs = 2 << 30 // bytes that are unpacked and read, of all files
	maxCmdline   = 64 << 10
)

// Secrets looks for private keys, passwords, credentials and the like: in the
// files on EFI system partitions, the sections of unified kernel images, the
// initramfs that are there, and the file systems SquashFS and EROFS. It also
// returns what it could not search, one line each. It reads at most 2 GiB of
// unpacked files, and needs little memory.
func (d *Disk) Secrets(ctx context.Context) (found []Secret, unread []string, err error) {
	table, err := exporterdisk.ReadPartitions(d)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	s := searcher{ctx: ctx, left: maxInitramfs, seen: map[Secret]bool{}}
	for _, p := range table.Partitions {
		switch {
		case p.ESP:
			s.partition(label(p), io.NewSectionReader(d, p.Start, p.Size))
		case p.RootVerity: // hashes
		case other(p) && d.hasData(p.Start, p.Size):
			what := "partition " + label(p)
			if !s.root(what, io.NewSectionReader(d, p.Start, p.Size)) {
				s.skip(what, errors.New("its file system is not known"))
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, nil, err
		}
	}
	return s.found, s.unread, nil
}

// hasData reports whether a part of the disk has a block that is not zero.
func (d *Disk) hasData(start, size int64) bool {
	return slices.ContainsFunc(d.Blocks, func(b Block) bool {
		at := int64(b.Index) * BlockSize
		return at < start+size && at+BlockSize > start
	})
}

// searcher collects secrets.
type searcher struct {
	ctx    context.Context
	left   int64 // bytes to unpack
	found  []Secret
	seen   map[Secret]bool
	unread []string
}

func (s *searcher) add(secrets ...Secret) {
	for _, secret := range secrets {
		if len(s.found) < maxSecrets && !s.seen[secret] {
			s.seen[secret] = true
			s.found = append(s.found, secret)
		}
	}
}

func (s *searcher) skip(what string, err error) {
	if len(s.unread) < maxSecrets {
		s.unread = append(s.unread, fmt.Sprintf("%s is not searched for secrets: %v", what, err))
	}
}

// partition searches an EFI system partition.
func (s *searcher) partition(name string, r *io.SectionReader) {
	esp, err := fat.Open(r)
	if err != nil {
		s.skip("partition "+name, err)
		return
	}
	files := 0
	err = fs.WalkDir(esp, ".", func(file string, entry fs.DirEntry, err error) error {
		if err := s.ctx.Err(); err != nil {
			return err
		}
		if err != nil {
			s.skip(fmt.Sprintf("%q", file), err)
			return nil
		}
		if files++; files > maxFiles {
			return fmt.Errorf("it has more than %d files", maxFiles)
		}
		if entry.IsDir() {
			return nil
		}
		content, err := esp.Content(file)
		if err != nil {
			s.skip(fmt.Sprintf("%q", file), err)
			return nil
		}
		s.espFile(esp, file, content)
		return nil
	})
	if err != nil && s.ctx.Err() == nil {
		s.skip("partition "+name, err)
	}
}

// bootConfigurations match files that have a kernel command line.
var bootConfigurations = regexp.MustCompile(`(?i)^(loader/entries/[^/]*\.conf|(boot/)?grub/grub\.cfg|.*/grub\.cfg|.*/(sys|ext|iso)linux\.cfg|cmdline\.txt)$`)

func (s *searcher) espFile(esp *fat.FS, file string, content *io.SectionReader) {
	magic := make([]byte, 6)
	n, _ := content.ReadAt(magic, 0)
	magic = magic[:n]
	switch {
	case bytes.HasPrefix(magic, []byte("MZ")):
		program, err := readProgram(esp, file)
		if err != nil {
			return // not a program for UEFI, for example a kernel for BIOS
		}
		if cmdline, ok := program.Section(".cmdline"); ok {
			text, _ := io.ReadAll(io.LimitReader(cmdline.Reader(), maxCmdline))
			s.add(cmdlineSecrets(file, text)...)
		}
		if initrd, ok := program.Section(".initrd"); ok {
			s.initramfs(file, initrd.Reader())
		}
	case isInitramfs(magic):
		s.initramfs(file, content)
	case s.root(fmt.Sprintf("%q", file), content):
	default:
		data := s.read(content)
		if bootConfigurations.MatchString(file) {
			s.add(cmdlineSecrets(file, data)...)
		}
		s.add(fileSecrets(file, data)...)
	}
}

func isInitramfs(magic []byte) bool {
	for _, known := range []string{"07070", "\x1f\x8b", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(magic, []byte(known)) {
			return true
		}
	}
	return false
}

// initramfs searches the members of an initramfs. Members that later ones
// replace can still be read on the disk.
func (s *searcher) initramfs(file string, r io.Reader) {
	initrd := cpio.NewInitramfsReader(r, s.left)
	defer initrd.Close()
	for s.ctx.Err() == nil {
		h, err := initrd.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			s.skip(fmt.Sprintf("the rest of the initramfs in %q", file), err)
			return
		}
		s.left -= h.Size
		switch h.Mode & cpio.TypeMask {
		case cpio.TypeFile:
			s.add(fileSecrets(h.Name, s.read(initrd))...)
		case cpio.TypeDir:
			s.add(repository(h.Name + "/")...)
		}
		if s.left <= 0 {
			s.skip(fmt.Sprintf("the rest of the initramfs in %q", file), cpio.ErrTooLarge)
			return
		}
	}
}

// rootFileSystems are file systems by their magic number.
var rootFileSystems = []struct {
	at    int64
	magic string
	read  func(io.ReaderAt, int64) ([]tree.Entry, error)
}{
	{0, "hsqs", squashfs.Read},
	{1024, "\xe2\xe1\xf5\xe0", erofs.Read},
}

// root searches a root file system. It reports whether the content is one.
func (s *searcher) root(what string, r *io.SectionReader) bool {
	for _, f := range rootFileSystems {
		magic := make([]byte, len(f.magic))
		if _, err := r.ReadAt(magic, f.at); err != nil || string(magic) != f.magic {
			continue
		}
		entries, err := f.read(r, r.Size())
		if err != nil {
			s.skip(what, err)
		}
		s.entries(what, entries)
		return true
	}
	return false
}

func (s *searcher) entries(what string, entries []tree.Entry) {
	for _, e := range entries {
		if s.ctx.Err() != nil {
			return
		}
		switch e.Type {
		case tree.Dir:
			s.add(repository(e.Path + "/")...)
		case tree.File:
			if s.left -= min(e.Size, maxSearched); s.left <= 0 {
				s.skip("the rest of "+what, errors.New("it is too large"))
				return
			}
			data := make([]byte, min(e.Size, maxSearched))
			if len(data) > 0 { // an empty file cannot be opened
				if n, err := e.ReaderAt().ReadAt(data, 0); n < len(data) {
					s.skip(fmt.Sprintf("%q in %s", e.Path, what), err)
					continue
				}
			}
			s.add(fileSecrets(e.Path, data)...)
		}
	}
}

// read returns the start of the content of a file.
func (s *searcher) read(r io.Reader) []byte {
	data, _ := io.ReadAll(io.LimitReader(r, maxSearched)) // Next reports an error of the archive
	return data
}

// cmdlineSecrets searches a kernel command line.
func cmdlineSecrets(file string, text []byte) []Secret {
	if insecure.Match(text) {
		return []Secret{{Path: file, What: "INSECURE=true on the kernel command line: a login needs no password"}}
	}
	return nil
}

// Contents of files. Programs contain the first lines of keys, so that the
// second ones must match too.
var (
	insecure    = regexp.MustCompile(`\bINSECURE=true\b`)
	privateKey  = regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:\r?\n|\\n)(?:[A-Za-z-]+: .*\r?\n|\r?\n)*[A-Za-z0-9+/=]{16,}`)
	pgpKey      = regexp.MustCompile(`-----BEGIN PGP PRIVATE KEY BLOCK-----\r?\n`)
	wireguard   = regexp.MustCompile(`(?m)^[ \t]*PrivateKey[ \t]*=[ \t]*[A-Za-z0-9+/]{43}=`)
	awsSecret   = regexp.MustCompile(`(?i)secret_?access_?key\b["']?[ \t]*[=:][ \t]*["']?[A-Za-z0-9+/]{40}\b`)
	githubToken = regexp.MustCompile(`\bgh[pos]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{60,}`)
	gcpAccount  = regexp.MustCompile(`"type"[ \t]*:[ \t]*"service_account"`)
	dockerAuth  = regexp.MustCompile(`"(?:auth|identitytoken)"[ \t]*:[ \t]*"[^"]+"`)
	npmToken    = regexp.MustCompile(`(?m)_(?:authToken|password|auth)[ \t]*=[ \t]*[^ \t$\r\n]`)
	netrc       = regexp.MustCompile(`\bpassword[ \t\r\n]+[^ \t\r\n]`)
	kubeSecret  = regexp.MustCompile(`(?m)^[ \t]*(?:client-key-data|token|password):[ \t]*[^ \t\r\n]`)
	publicKey   = regexp.MustCompile(`(?m)^[^#\r\n]*\b(?:ssh-(?:rsa|dss|ed25519)|ecdsa-sha2-[a-z0-9-]+|sk-[a-z0-9@.-]+) AAAA`)
)

// contents are secrets by the content of any file. The text is in all files that
// the pattern matches, and faster to find.
var contents = []struct {
	text    string
	pattern *regexp.Regexp
	what    string
}{
	{"PRIVATE KEY-----", privateKey, "a private key"},
	{"PGP PRIVATE KEY BLOCK", pgpKey, "a private key of PGP"},
	{"PrivateKey", wireguard, "a private key of WireGuard"},
	{"secret_access_key", awsSecret, "credentials of AWS"},
	{"SECRET_ACCESS_KEY", awsSecret, "credentials of AWS"},
	{"SecretAccessKey", awsSecret, "credentials of AWS"},
	{"ghp_", githubToken, "a token of GitHub"},
	{"gho_", githubToken, "a token of GitHub"},
	{"ghs_", githubToken, "a token of GitHub"},
	{"github_pat_", githubToken, "a token of GitHub"},
	{"service_account", gcpAccount, "credentials of Google Cloud"},
}

// files are secrets by the name of the file. The pattern matches the content.
var files = []struct {
	suffix  string // of the path, at a slash
	pattern *regexp.Regexp
	what    string
}{
	{".aws/credentials", awsSecret, "credentials of AWS"},
	{".docker/config.json", dockerAuth, "credentials of registries"},
	{".config/containers/auth.json", dockerAuth, "credentials of registries"},
	{".git-credentials", regexp.MustCompile(`://[^/\s]+:[^/\s]+@`), "credentials of Git"},
	{".netrc", netrc, "passwords"},
	{".npmrc", npmToken, "credentials of npm"},
	{".pypirc", regexp.MustCompile(`(?m)^[ \t]*password[ \t]*[=:][ \t]*[^ \t\r\n]`), "credentials of PyPI"},
	{".kube/config", kubeSecret, "credentials of Kubernetes"},
	{".azure/accessTokens.json", regexp.MustCompile(`"(?:access|refresh)Token"`), "credentials of Azure"},
	{".azure/msal_token_cache.json", regexp.MustCompile(`"secret"`), "credentials of Azure"},
	{".config/gcloud/credentials.db", regexp.MustCompile(`.`), "credentials of Google Cloud"},
	{".vault-token", regexp.MustCompile(`\S`), "a token of Vault"},
}

// histories are files that shells and other programs write what was typed to.
var histories = regexp.MustCompile(`^\.(?:ba|a|z|k|mk|tc)?sh_history$|^\.history$|^\.(?:python|mysql|psql|sqlite|node_repl|rediscli)_history$|^\.(?:viminfo|lesshst|wget-hsts)$|^fish_history$`)

var hostKey = regexp.MustCompile(`^ssh_host_[a-z0-9]+_key$|^dropbear_[a-z0-9]+_host_key$`)

// fileSecrets searches a file.
func fileSecrets(name string, data []byte) []Secret {
	name = strings.TrimPrefix(path.Clean(name), "/")
	found := repository(name)
	add := func(what string) { found = append(found, Secret{Path: name, What: what}) }
	base := path.Base(name)
	if len(bytes.TrimSpace(data)) == 0 {
		return found
	}
	isHostKey := hostKey.MatchString(base)
	if isHostKey {
		add("an ssh host key: all machines have the same")
	}
	if histories.MatchString(base) {
		add("a history of commands")
	}
	named := ""
	for _, f := range files {
		if (name == f.suffix || strings.HasSuffix(name, "/"+f.suffix)) && f.pattern.Match(data) {
			named = f.what
			add(f.what)
		}
	}
	for _, c := range contents {
		if (c.what != "a private key" || !isHostKey) && c.what != named && bytes.Contains(data, []byte(c.text)) && c.pattern.Match(data) {
			add(c.what)
		}
	}
	if base == "config.json" && bytes.Contains(data, []byte(`"INSECURE=true"`)) {
		add("INSECURE=true in the environment of a container: a login needs no password")
	}
	switch {
	case base == "authorized_keys" || base == "authorized_keys2":
		if n := len(publicKey.FindAll(data, -1)); n > 0 {
			secret := Secret{Path: name, What: fmt.Sprintf("%d ssh keys that may log in", n), Declared: !strings.HasPrefix(name, "containers/")}
			if !secret.Declared {
				secret.What += ", from a container image"
			}
			found = append(found, secret)
		}
	case base == "shadow" || base == "shadow-" || strings.HasSuffix(base, ".shadow"):
		found = append(found, passwords(name, data, false)...)
	case name == "etc/passwd" || strings.HasSuffix(name, "/etc/passwd"):
		found = append(found, passwords(name, data, true)...)
	}
	return found
}

// repository returns a secret if a path leads through the metadata of a version
// control system.
func repository(name string) []Secret {
	dir, _, inside := strings.Cut("/"+name, "/.git/")
	if !inside {
		return nil
	}
	return []Secret{{Path: strings.TrimPrefix(dir+"/.git", "/"), What: "a Git repository with its history"}}
}

// passwords returns the users in shadow(5) or passwd(5) who can log in with a
// password or without one. A field that is no possible result of crypt(3) locks
// the password.
func passwords(name string, data []byte, passwd bool) []Secret {
	var found []Secret
	for line := range strings.Lines(string(data)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) < 3 || fields[0] == "" || strings.HasPrefix(fields[0], "#") {
			continue
		}
		user, field := fields[0], fields[1]
		switch {
		case field == "":
			found = append(found, Secret{Path: name, What: fmt.Sprintf("the user %q needs no password", user)})
		case passwd && field == "x", strings.ContainsAny(field[:1], "*!"), !strings.HasPrefix(field, "$") && len(field) != 13:
		default:
			found = append(found, Secret{Path: name, What: fmt.Sprintf("the password hash of the user %q", user)})
		}
	}
	return found
}
