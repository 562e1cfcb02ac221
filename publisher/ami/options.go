package ami

import (
	"cmp"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A Method is a way to get a disk into a snapshot.
type Method string

// Methods.
const (
	MethodEBS    Method = "ebs"    // write blocks with the EBS direct APIs
	MethodImport Method = "import" // upload to S3, then call ImportSnapshot
)

// A Protection from deregistration is one without or with a cooldown: EC2 then
// protects the image for 24 hours more after the protection was disabled.
type Protection string

// Protections.
const (
	ProtectionOn       Protection = "enabled"
	ProtectionCooldown Protection = "with-cooldown"
)

// Options say what to publish and how. All of them are optional.
type Options struct {
	// Name is the AMI's name, unique in its region and account: 3 to 128
	// letters, digits and ()[] ./-'@_. Default: the disk's file name without
	// its extension, and a digest of the disk and the other options.
	Name string

	// Regions are the regions to publish to. Repeated ones are ignored. Default:
	// the region of the AWS configuration.
	Regions []string

	// Copy uploads to the first region only and copies the AMI to the others.
	Copy bool

	// Method is the way of the upload. Default: MethodEBS.
	Method Method

	// Bucket is the S3 bucket that MethodImport uploads to. It must be in the
	// first region.
	Bucket string

	// Role is the service role that MethodImport uses. Default: vmimport.
	Role string

	// Parent is the ID of a snapshot to which only the differences are written,
	// or "auto" for the newest snapshot of a disk with the same file name.
	// Default: none.
	Parent string

	// Encrypt encrypts the snapshot, with KMSKey if that is set or else with
	// the account's default key.
	Encrypt bool

	// KMSKey is the ARN of a key. It implies Encrypt. A multi-Region key, whose
	// ID starts with mrk-, stands for its replicas in the other regions.
	KMSKey string

	// KMSKeys are the ARNs of keys by region, which precede KMSKey. They imply
	// Encrypt.
	KMSKeys map[string]string

	// Architecture is needed only for a disk that boots on several.
	Architecture disk.Architecture

	// VolumeSize is the size of the root volume in GiB. Default: the size of
	// the disk, rounded up.
	VolumeSize int64

	// VolumeType is the type of the root volume. Default: gp3.
	VolumeType types.VolumeType

	// Tags are set on images and snapshots.
	Tags map[string]string

	// Register holds other fields of the RegisterImage request. Fields that
	// Options set otherwise are overwritten.
	Register ec2.RegisterImageInput

	// Share lists who may launch the image: account IDs, ARNs of organizations
	// or organizational units, or "all".
	Share []string

	// AllowSecrets are paths on the disk that may have secrets, and directories
	// with them. Other secrets cause warnings and, if Share has "all", an error.
	AllowSecrets []string

	// DeprecateAfter is the time from now after which the image is deprecated.
	// Default: never.
	DeprecateAfter time.Duration

	// Launch tests the image with an instance before it is shared and before
	// SSMParameter is set, in each region. Default: no test.
	Launch *Launch

	// SSMParameter is the name of an SSM parameter to set to the image's ID.
	SSMParameter string

	// Protection protects the image from deregistration, as the last step: see
	// [Protection]. Default: no protection. An existing image keeps its own.
	Protection Protection

	// KeepGoing makes the regions independent: a failure undoes only what was
	// made in its region.
	KeepGoing bool

	// Keep keeps what a failed run made, so that the next run can continue.
	Keep bool

	// State is the directory of the journals. Default: $XDG_STATE_HOME/slipway
	// or ~/.local/state/slipway.
	State string

	// Workers is the maximum number of concurrent requests that write blocks.
	// Default: 128.
	Workers int

	// Rate is the maximum number of blocks per second in each region. Default:
	// 950; AWS permits 1000.
	Rate float64

	// Timeout is the limit of one attempt of a request. Default: 20 s.
	Timeout time.Duration

	// Monitor receives the progress. May be nil.
	Monitor *Monitor
}

// defaultTimeout is the limit of one attempt of a request.
const defaultTimeout = 20 * time.Second

var (
	validName   = regexp.MustCompile(`^[A-Za-z0-9()\[\] ./\-'@_]{3,128}$`)
	invalidName = regexp.MustCompile(`[^A-Za-z0-9()\[\] ./\-'@_]`)
)

// defaultName returns a name from the name of a file and a digest, of which 12
// digits make it unique.
func defaultName(file, digest string) string {
	file = filepath.Base(file)
	file = invalidName.ReplaceAllString(strings.TrimSuffix(file, filepath.Ext(file)), "")
	return file[:min(len(file), 128-13)] + "-" + digest[:12]
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// complete sets the defaults of unset options.
func (o *Options) complete(d *disk.Disk) error {
	setDefault(&o.Method, MethodEBS)
	setDefault(&o.Role, "vmimport")
	setDefault(&o.VolumeType, types.VolumeTypeGp3)
	setDefault(&o.VolumeSize, gibibytes(d.Size))
	setDefault(&o.Workers, 128)
	setDefault(&o.Rate, 950)
	setDefault(&o.Timeout, defaultTimeout)
	if o.Monitor == nil {
		o.Monitor = new(Monitor)
	}
	if o.Launch != nil {
		launch := *o.Launch
		launch.complete()
		o.Launch = &launch
	}
	o.Regions = unique(o.Regions)
	o.Encrypt = o.Encrypt || o.KMSKey != "" || len(o.KMSKeys) > 0
	if o.State == "" {
		dir, err := stateDir()
		if err != nil {
			return err
		}
		o.State = dir
	}
	return nil
}

func (o *Options) check(d *disk.Disk) error {
	switch {
	case o.Name != "" && !validName.MatchString(o.Name):
		return fail(ClassUsage, "invalid AMI name %q: use 3 to 128 letters, digits and ()[] ./-'@_", o.Name)
	case o.Method != MethodEBS && o.Method != MethodImport:
		return fail(ClassUsage, "unknown method %q: use ebs or import", o.Method)
	case o.Method == MethodImport && o.Bucket == "":
		return fail(ClassUsage, "the method import requires a bucket in the same region: use --bucket NAME")
	case o.Method == MethodImport && o.Parent != "":
		return fail(ClassUsage, "the method import does not support --parent: use the method ebs")
	case o.Method == MethodImport && len(o.Regions) > 1 && !o.Copy:
		return fail(ClassUsage, "the method import can upload only to the region of its bucket: add --copy")
	case strings.HasPrefix(o.Parent, "snap-") && len(o.Regions) > 1 && !o.Copy:
		return fail(ClassUsage, "the parent %s exists in one region only: use --parent auto, or add --copy", o.Parent)
	case o.VolumeSize > disk.MaxSize>>30:
		return fail(ClassUsage, "a volume of %d GiB is too large: EBS permits %d", o.VolumeSize, disk.MaxSize>>30)
	case o.VolumeSize < gibibytes(d.Size):
		return fail(ClassUsage, "a volume of %d GiB is too small: the disk needs %d", o.VolumeSize, gibibytes(d.Size))
	case o.DeprecateAfter != 0 && (o.DeprecateAfter < minDeprecation || o.DeprecateAfter > maxDeprecation):
		return fail(ClassUsage, "invalid time to deprecation %v: use 2 minutes to 10 years", o.DeprecateAfter)
	case o.sharesWithAll() && o.DeprecateAfter > maxPublicDeprecation:
		return fail(ClassUsage, "invalid time to deprecation %v: a public image is deprecated after at most 2 years", o.DeprecateAfter)
	case o.Protection != "" && o.Protection != ProtectionOn && o.Protection != ProtectionCooldown:
		return fail(ClassUsage, "unknown deregistration protection %q: use enabled or with-cooldown", o.Protection)
	case o.sharesWithAll() && o.Encrypt:
		return fail(ClassUsage, "an encrypted image cannot be shared with all: omit --encrypt and --kms-key, or share it with accounts")
	}
	for _, step := range []func() error{o.checkKeys, o.checkShare, o.checkTags, o.checkDescription, o.checkLaunch} {
		if err := step(); err != nil {
			return err
		}
	}
	mappings := o.registration().BlockDeviceMappings
	if size := int64(*mappings[0].Ebs.VolumeSize); size < gibibytes(d.Size) {
		return fail(ClassUsage, "a volume of %d GiB is too small: the disk needs %d", size, gibibytes(d.Size))
	}
	return checkVolumes(mappings)
}

// Limits of EnableImageDeprecation, which rounds to minutes.
const (
	minDeprecation       = 2 * time.Minute
	maxDeprecation       = 10 * 365 * 24 * time.Hour
	maxPublicDeprecation = 2 * 365 * 24 * time.Hour
)

var validGrantee = regexp.MustCompile(`^(all|\d{12}|arn:aws[a-z-]*:organizations::\d{12}:(organization/o-[a-z0-9]+|ou/o-[a-z0-9]+/ou-[a-z0-9-]+))$`)

func (o *Options) checkShare() error {
	for _, who := range o.Share {
		if !validGrantee.MatchString(who) {
			return fail(ClassUsage, "cannot share with %q: use all, a 12-digit account ID, or the ARN of an organization or organizational unit", who)
		}
	}
	return nil
}

func (o *Options) sharesWithAll() bool { return slices.Contains(o.Share, "all") }

// checkTags applies the rules of "Tag your Amazon EC2 resources" in the EC2
// user guide.
func (o *Options) checkTags() error {
	for _, key := range slices.Sorted(maps.Keys(o.Tags)) {
		switch lower := strings.ToLower(key); {
		case key == "" || utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(o.Tags[key]) > 256:
			return fail(ClassUsage, "invalid tag %q: a key has 1 to 128 characters, a value at most 256", key)
		case strings.HasPrefix(lower, "aws:") || strings.HasPrefix(lower, "slipway:"):
			return fail(ClassUsage, "invalid tag %q: the prefixes aws: and slipway: are reserved", key)
		}
	}
	if most := maxTags - ownTags; len(o.Tags) > most {
		return fail(ClassUsage, "%d tags are too many: EC2 permits %d, of which slipway-publish needs %d", len(o.Tags), maxTags, ownTags)
	}
	return nil
}

func (o *Options) checkDescription() error {
	text := *o.description()
	if len(text) > 255 || strings.ContainsFunc(text, func(c rune) bool { return c > unicode.MaxASCII }) {
		return fail(ClassUsage, "invalid description %.40q: use at most 255 ASCII characters", text)
	}
	return nil
}

func (o *Options) checkLaunch() error {
	if o.Launch == nil {
		return nil
	}
	return o.Launch.check()
}

// description returns the description of the image. Default: its name.
func (o *Options) description() *string {
	return cmp.Or(o.Register.Description, &o.Name)
}

// validKey matches the ARN of a key: its region and the start of a multi-Region
// key's ID are submatches.
var validKey = regexp.MustCompile(`^(arn:aws[a-z-]*:kms:)([a-z0-9-]+)(:\d{12}:(?:key/(mrk-)?|alias/)[A-Za-z0-9/_-]+)$`)

func (o *Options) checkKeys() error {
	for _, key := range append(slices.Sorted(maps.Values(o.KMSKeys)), o.KMSKey) {
		if key != "" && !validKey.MatchString(key) {
			return fail(ClassUsage, "invalid key %q: use its ARN, arn:aws:kms:REGION:ACCOUNT:key/ID", key)
		}
	}
	for region, key := range o.KMSKeys {
		if parts := validKey.FindStringSubmatch(key); parts != nil && parts[2] != region {
			return fail(ClassUsage, "the key %s is not in %s, and EBS can use only keys of the same region", key, region)
		}
	}
	return nil
}

// keyOf returns the ARN of the key for a region, or "" for the default key.
func (o *Options) keyOf(region string) (string, error) {
	if key := o.KMSKeys[region]; key != "" {
		return key, nil
	}
	parts := validKey.FindStringSubmatch(o.KMSKey)
	switch {
	case parts == nil && len(o.KMSKeys) > 0:
		return "", fail(ClassUsage, "no key for %s: add --kms-key %s=ARN", region, region)
	case parts == nil || parts[2] == region:
		return o.KMSKey, nil
	case parts[4] != "": // its replicas have the same ID
		return parts[1] + region + parts[3], nil
	}
	return "", fail(ClassUsage, "the key %s cannot be used in %s: add --kms-key %s=ARN, or use a multi-Region key", o.KMSKey, region, region)
}

// checkBoot finds architecture and boot mode, and returns the disk's warnings.
func (o *Options) checkBoot(d *disk.Disk) (warnings []string, err error) {
	boot, err := d.Boot()
	if err != nil {
		return nil, &Error{ClassDisk, err}
	}
	setDefault(&o.Architecture, disk.Architecture(o.Register.Architecture))
	if o.Architecture == "" {
		switch {
		case len(boot.UEFI) == 1:
			o.Architecture = boot.UEFI[0]
		case len(boot.UEFI) > 1:
			return nil, fail(ClassUsage, "%s boots on %v: choose one with --arch", d.Name, boot.UEFI)
		case boot.BIOS:
			o.Architecture = disk.AMD64
		default:
			return nil, fail(ClassDisk, "%s cannot boot: it has neither EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI on an EFI system partition nor BIOS boot code; build it with --target raw", d.Name)
		}
	}
	supported := boot.Mode(o.Architecture)
	wanted := string(o.Register.BootMode)
	switch {
	case wanted == "" && supported == "":
		return nil, fail(ClassDisk, "%s cannot boot on %s: build it for that platform, or set its architecture with --arch", d.Name, o.Architecture)
	case wanted == "":
		o.Register.BootMode = types.BootModeValues(supported)
	case wanted != supported && supported != "uefi-preferred":
		return nil, fail(ClassDisk, "%s cannot boot as %s on %s: its boot mode is %q; omit --boot-mode", d.Name, wanted, o.Architecture, supported)
	}
	if o.Register.TpmSupport != "" && o.Register.BootMode != types.BootModeValuesUefi {
		return nil, fail(ClassUsage, "TpmSupport requires the boot mode uefi: add --boot-mode uefi")
	}
	return boot.Warnings, nil
}

// registration returns the request that registers the image, without snapshot
// and tags.
func (o *Options) registration() *ec2.RegisterImageInput {
	input := o.Register
	input.Name = &o.Name
	input.Architecture = types.ArchitectureValues(o.Architecture)
	setField(&input.VirtualizationType, "hvm")
	setField(&input.RootDeviceName, "/dev/xvda")
	setField(&input.EnaSupport, true)
	setDefault(&input.ImdsSupport, types.ImdsSupportValuesV20)
	root := types.BlockDeviceMapping{DeviceName: input.RootDeviceName, Ebs: new(types.EbsBlockDevice)}
	mappings := []types.BlockDeviceMapping{root}
	for _, m := range input.BlockDeviceMappings {
		if aws.ToString(m.DeviceName) == *input.RootDeviceName && m.Ebs != nil {
			*root.Ebs = *m.Ebs
		} else {
			mappings = append(mappings, m)
		}
	}
	// Encrypted stays unset: the volume inherits it from the snapshot, and EC2
	// rejects requests with both.
	setField(&root.Ebs.DeleteOnTermination, true)
	setField(&root.Ebs.VolumeSize, int32(o.VolumeSize))
	setDefault(&root.Ebs.VolumeType, o.VolumeType)
	input.BlockDeviceMappings = mappings
	return &input
}

// register returns the request that registers the image of a snapshot.
func (o *Options) register(snapshot string) *ec2.RegisterImageInput {
	input := o.registration()
	input.BlockDeviceMappings[0].Ebs.SnapshotId = &snapshot
	input.Description = o.description()
	return input
}

func setField[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// stateDir returns the default of Options.State, which follows the XDG Base
// Directory Specification 0.8.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "slipway"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fail(ClassUsage, "no state directory: %v; use --state DIR", err)
	}
	return filepath.Join(home, ".local", "state", "slipway"), nil
}

// unique returns names without repetitions.
func unique(names []string) []string {
	var out []string
	for _, name := range names {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// gibibytes rounds a number of bytes up to GiB.
func gibibytes(bytes int64) int64 { return (bytes + 1<<30 - 1) >> 30 }
