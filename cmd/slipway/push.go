package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/format"
	"github.com/slipway-build/slipway/exporter/measure"
	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/internal/statement"
	"github.com/slipway-build/slipway/publisher/artifact"
	"github.com/slipway-build/slipway/publisher/disk"
)

func newPushCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "push [flags] DISK… oci://REGISTRY/REPOSITORY:TAG",
		Short: "Store disks in a registry",
		Long:  "Store disks in a registry, as one image index over architectures and formats. Prints the reference with its digest.",
		Example: `  slipway push out/aws.raw oci://registry.example.com/machines/aws:v1
  slipway push out/linux_amd64/aws.raw out/linux_arm64/aws.raw oci://registry.example.com/machines/aws:v1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 || !artifact.IsReference(args[len(args)-1]) {
				return cli.Usagef("requires disks, and where to store them: oci://REGISTRY/REPOSITORY:TAG")
			}
			return nil
		},
	}
	f := newPushFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.architecture, "arch", "", "`architecture` of disks that do not show it: amd64 or arm64")
	flags.StringVar(&f.format, "format", "", "`name` of the format (default: that of the file names)")
	flags.StringArrayVar(&f.attach, "attach", nil, "attach an SBOM, provenance or another `[TYPE=]FILE`; may be repeated")
	flags.StringVar(&f.lock, "lock", "", "lock `file` of the build, whose digest becomes an annotation; attaches a statement about what the disks were built from")
	cli.PairsVar(flags, f.annotations, "annotation", "annotation of the disks as `KEY=VALUE`, for example org.opencontainers.image.source=URL; may be repeated", nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := artifact.ParseReference(args[len(args)-1])
		if err != nil {
			return cli.Usagef("%w", err)
		}
		return f.push(cmd, args[:len(args)-1], ref)
	}
	return cmd
}

// pushFlags are the properties of disks to push.
type pushFlags struct {
	architecture, format, lock string
	annotations                map[string]string
	attach                     []string // [TYPE=]FILE
	key                        string   // file of the key that signs
	keys                       string   // folder of the keys of firmware
	yaml                       string   // of the build, or ""
	pcrs                       []string // files with measurements, of the build
}

// newPushFlags adds the flags of all commands that push.
func newPushFlags(cmd *cobra.Command) *pushFlags {
	f := &pushFlags{annotations: map[string]string{}}
	cmd.Flags().StringVar(&f.key, "sign-key", "", "sign with the private key in a PEM `file`, as Cosign does")
	cmd.Flags().StringVar(&f.keys, "keys", "", keysUsage)
	return f
}

// typedFile matches [TYPE=]FILE of --attach, with a media type.
var typedFile = regexp.MustCompile(`^(?:([a-z]+/[A-Za-z0-9.+_-]+)=)?(.+)$`)

// attachments reads the files to attach.
func (f *pushFlags) attachments() (all []artifact.Attachment, err error) {
	for _, text := range f.attach {
		m := typedFile.FindStringSubmatch(text)
		if m == nil {
			return nil, cli.Usagef("--attach %q: write it as FILE or TYPE=FILE", text)
		}
		content, err := readLimited(m[2], artifact.MaxAttachment)
		if err != nil {
			return nil, err
		}
		a := artifact.Attachment{Name: filepath.Base(m[2]), Type: m[1], Content: content}
		if a.Type == "" {
			if a, err = artifact.NewAttachment(a.Name, content); err != nil {
				return nil, cli.Usagef("--attach: %w, as in --attach application/json=FILE", err)
			}
		}
		if architecture := cmp.Or(goArch(f.architecture), folderArch(m[2])); architecture != "" {
			if a.Annotations == nil {
				a.Annotations = map[string]string{}
			}
			a.Annotations[artifact.AnnotationArchitecture] = architecture
		}
		all = append(all, a)
	}
	return all, nil
}

// readLimited reads a file of at most limit bytes.
func readLimited(name string, limit int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return content, err
}

// push stores disks and prints the reference to them.
func (f *pushFlags) push(cmd *cobra.Command, paths []string, ref artifact.Reference) error {
	var build *statement.Build
	if f.lock != "" {
		var err error
		if build, err = lockedBuild(f.lock, f.yaml); err != nil {
			return err
		}
		f.annotations[artifact.AnnotationLock] = fmt.Sprintf("sha256:%x", sha256.Sum256(build.Lock.Content))
	}
	attachments, err := f.attachments()
	if err != nil {
		return err
	}
	key, err := f.signKey()
	if err != nil {
		return err
	}
	trusted, err := trustedKeys(f.keys)
	if err != nil {
		return err
	}
	var uploads []artifact.Upload
	var all []statement.Measured
	for _, path := range paths {
		u, err := f.upload(cmd.Context(), path)
		if err != nil {
			return err
		}
		defer u.Disk.Close()
		uploads = append(uploads, u)
		m := measured(filepath.Base(path), u.Architecture, u.Disk, u.Disk.Size, trusted)
		if err := f.replace(m, path); err != nil {
			return err
		}
		all = append(all, m...)
	}
	for _, m := range all {
		content, err := m.JSON()
		if err != nil {
			return err
		}
		attachments = append(attachments, artifact.Attachment{
			Name: m.FileName(), Type: statement.TypeMeasurements, Content: content,
			Annotations: map[string]string{artifact.AnnotationArchitecture: m.Architecture},
		})
	}
	pushed, err := artifact.Push(cmd.Context(), ref, uploads)
	if err != nil {
		return err
	}
	if build != nil {
		build.Measured = all
		a, err := attestation(pushed, uploads, *build)
		if err != nil {
			return err
		}
		attachments = append(attachments, a)
		if key != nil {
			if err := artifact.Attest(cmd.Context(), pushed, a.Content, key); err != nil {
				return err
			}
		}
	}
	if err := artifact.Attach(cmd.Context(), pushed, attachments); err != nil {
		return err
	}
	if key != nil {
		if err := artifact.Sign(cmd.Context(), pushed, key); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), pushed)
	return err
}

// replace replaces the measurements of a disk by those that the build has written
// beside it, which may be for the keys of firmware.
func (f *pushFlags) replace(m []statement.Measured, disk string) error {
	for _, path := range f.pcrs {
		if len(m) != 1 || f.keys != "" || filepath.Dir(path) != filepath.Dir(disk) {
			continue
		}
		content, err := readLimited(path, artifact.MaxAttachment)
		if err != nil {
			return err
		}
		var built measure.Measurements
		if err := json.Unmarshal(content, &built); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		if built.PCRs != nil {
			m[0].Name, m[0].Measurements = strings.TrimSuffix(filepath.Base(path), format.PCRsSuffix), &built
		}
	}
	return nil
}

// signKey returns the key that signs, or nil.
func (f *pushFlags) signKey() (*ecdsa.PrivateKey, error) {
	if f.key == "" {
		return nil, nil
	}
	text, err := readLimited(f.key, maxKey)
	if err != nil {
		return nil, err
	}
	key, err := artifact.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("--sign-key %s: %w", f.key, err)
	}
	return key, nil
}

// attestation returns a statement about pushed disks. Its first subject is the
// image index, which Cosign looks for, the others are the files.
func attestation(pushed artifact.Reference, uploads []artifact.Upload, build statement.Build) (artifact.Attachment, error) {
	repository, index, _ := strings.Cut(strings.TrimPrefix(pushed.String(), "oci://"), "@sha256:")
	subjects := []statement.Subject{{Name: repository, Digest: map[string]string{"sha256": index}}}
	for _, u := range uploads {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(u.Disk, 0, u.Disk.Size)); err != nil {
			return artifact.Attachment{}, err
		}
		subjects = append(subjects, statement.NewSubject(filepath.Base(u.Disk.Name), h.Sum(nil)))
	}
	content, err := statement.New(subjects, build)
	if err != nil {
		return artifact.Attachment{}, err
	}
	return artifact.NewAttachment(strings.TrimSuffix(build.Lock.Name, frontend.LockName(""))+".intoto.json", content)
}

// upload opens a disk and finds out what it is.
func (f *pushFlags) upload(ctx context.Context, path string) (u artifact.Upload, err error) {
	u = artifact.Upload{Architecture: goArch(f.architecture), Format: f.format, Annotations: f.annotations}
	if u.Format == "" {
		if u.Format = formatOf(path); u.Format == "" {
			return u, cli.Usagef("%s: the format is not known from the file name: use --format", path)
		}
	}
	if u.Disk, err = disk.Open(ctx, path); err != nil {
		return u, err
	}
	defer func() {
		if err != nil {
			u.Disk.Close()
		}
	}()
	if u.Format == "raw" {
		boot, err := u.Disk.Boot()
		if err != nil {
			return u, err
		}
		if u.Architecture == "" {
			u.Architecture = architectureOf(boot)
		}
		for _, a := range []disk.Architecture{disk.AMD64, disk.ARM64} {
			if goArch(string(a)) == u.Architecture {
				u.BootMode = boot.Mode(a)
			}
		}
	}
	if u.Architecture == "" {
		u.Architecture = folderArch(path)
	}
	if u.Architecture != "amd64" && u.Architecture != "arm64" {
		return u, cli.Usagef("%s: the architecture is not known from the disk: use --arch amd64 or arm64", path)
	}
	return u, nil
}

// architectureOf returns the only architecture that a disk boots on, or "".
func architectureOf(boot disk.Boot) string {
	switch {
	case len(boot.UEFI) == 1:
		return goArch(string(boot.UEFI[0]))
	case len(boot.UEFI) == 0 && boot.BIOS:
		return "amd64"
	}
	return ""
}

// goArch returns an architecture as in Go.
func goArch(name string) string {
	switch name {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return name
}

// folderArch returns the architecture of a file in the output of several
// platforms, or "".
func folderArch(path string) string {
	architecture, found := strings.CutPrefix(filepath.Base(filepath.Dir(path)), "linux_")
	if !found {
		return ""
	}
	return architecture
}

// formatOf returns the format of a file by its name, or "". Of several formats
// with the same suffix it is the one with the shortest name.
func formatOf(path string) string {
	var best format.Format
	suffix := ""
	for _, f := range format.All() {
		if f.Container || f.Firmware == 0 || len(f.Suffixes) != 1 || !strings.HasSuffix(path, f.Suffixes[0]) {
			continue
		}
		longer := len(f.Suffixes[0]) - len(suffix)
		if longer > 0 || longer == 0 && len(f.Name) < len(best.Name) || longer == 0 && f.Name == "raw" {
			best, suffix = f, f.Suffixes[0]
		}
	}
	return best.Name
}

func newPullCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pull [flags] oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
		Short: "Get a disk from a registry",
		Long:  "Get a disk from a registry, and verify it. The file is sparse where the disk is zero.",
		Example: `  slipway pull oci://registry.example.com/machines/aws:v1
  slipway pull --arch arm64 -o out oci://registry.example.com/machines/aws:v1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("requires one disk: oci://REGISTRY/REPOSITORY:TAG")
			}
			return nil
		},
	}
	var choice artifact.Choice
	var output string
	flags := cmd.Flags()
	flags.StringVar(&choice.Architecture, "arch", "", "`architecture`: amd64 or arm64 (default: this machine's, if there are several)")
	flags.StringVar(&choice.Format, "format", "", "`name` of the format (default: raw, if there are several)")
	flags.StringVarP(&output, "output", "o", ".", "`folder` for the file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ref, err := artifact.ParseReference(args[0])
		if err != nil {
			return cli.Usagef("%w", err)
		}
		choice.Architecture = goArch(choice.Architecture)
		return pull(cmd, ref, choice, output)
	}
	return cmd
}

// pull saves a disk of a registry in a folder and prints its path.
func pull(cmd *cobra.Command, ref artifact.Reference, choice artifact.Choice, output string) error {
	path, size, err := save(cmd, ref, choice, output)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\t%s\n", path, units.HumanSize(float64(size)))
	return err
}

// save saves a disk of a registry in a folder, and returns its path and its size
// in bytes.
func save(cmd *cobra.Command, ref artifact.Reference, choice artifact.Choice, output string) (path string, size int64, err error) {
	choice.Preferred = artifact.Preference{Architecture: runtime.GOARCH, Format: "raw"}
	a, err := artifact.Open(cmd.Context(), ref, choice)
	if err != nil {
		return "", 0, err
	}
	if !ref.Pinned() {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s\n", a.Reference)
	}
	if err := os.Mkdir(output, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", 0, err
	}
	dir, err := os.OpenRoot(output)
	if err != nil {
		return "", 0, err
	}
	defer dir.Close()
	name, err := a.Save(cmd.Context(), dir)
	return filepath.Join(output, name), a.Size, err
}
