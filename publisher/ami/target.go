package ami

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Tags on snapshots and images.
const (
	TagContent = "slipway:content" // digest of the disk
	TagToken   = "slipway:token"   // digest of the disk and all settings
	TagDisk    = "slipway:disk"    // file name of the disk, by which Parent "auto" finds snapshots
	tagRun     = "slipway:run"     // the run that made the resource
	tagBlocks  = "slipway:blocks:" // followed by a number: a part of the manifest
)

// A target is one region to publish to. The types uploader, importer,
// registrar, finisher and undoer each do one part of the work on it.
type target struct {
	publisher *Publisher
	region    string
	aws       services
	key       string   // ARN of the region's KMS key, or ""
	journal   *journal // nil in a dry run
	image     *Image   // the result so far

	snapshotToken string // identifies content and encryption
	imageToken    string // identifies all settings too
}

// open opens the journal.
func (t *target) open(ctx context.Context) (err error) {
	o := &t.publisher.options
	name := digest([]any{t.imageToken, o.Method, o.Parent, o.Bucket, t.region})
	t.journal, err = openJournal(ctx, o.State, name, func() {
		t.step("waiting for another run that publishes the same disk")
	})
	return err
}

func (t *target) monitor() *Monitor { return t.publisher.options.Monitor }

func (t *target) step(format string, args ...any) {
	if report := t.monitor().Step; report != nil {
		report(t.region, fmt.Sprintf(format, args...))
	}
}

// registerRequest returns the request that registers the image of a snapshot.
func (t *target) registerRequest(snapshot string) *ec2.RegisterImageInput {
	input := t.publisher.options.register(snapshot)
	input.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeImage, Tags: t.tags(t.imageToken)}}
	return input
}

// copyRequest returns the request that copies an image of another region.
func (t *target) copyRequest(image, region string) *ec2.CopyImageInput {
	o := &t.publisher.options
	input := &ec2.CopyImageInput{
		Name:          &o.Name,
		Description:   o.description(),
		SourceImageId: &image,
		SourceRegion:  &region,
		ClientToken:   aws.String(digest([]string{t.run(), "copy"})),
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeImage, Tags: t.tags(t.imageToken)},
			{ResourceType: types.ResourceTypeSnapshot, Tags: t.tags(t.snapshotToken)},
		},
	}
	if o.Encrypt {
		input.Encrypted = aws.Bool(true)
		if t.key != "" {
			input.KmsKeyId = &t.key
		}
	}
	return input
}

// importRequest returns the request that imports an object as a snapshot.
func (t *target) importRequest(key string) *ec2.ImportSnapshotInput {
	o := &t.publisher.options
	input := &ec2.ImportSnapshotInput{
		ClientToken: aws.String(digest([]string{t.run(), "import"})),
		Description: &o.Name,
		RoleName:    &o.Role,
		DiskContainer: &types.SnapshotDiskContainer{
			Description: &o.Name,
			Format:      aws.String("RAW"),
			UserBucket:  &types.UserBucket{S3Bucket: &o.Bucket, S3Key: &key},
		},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImportSnapshotTask, Tags: t.tags(t.snapshotToken)}},
	}
	if o.Encrypt {
		input.Encrypted = aws.Bool(true)
		if t.key != "" {
			input.KmsKeyId = &t.key
		}
	}
	return input
}

// run returns the ID of the run. Before the journal is open, that is an ID of
// the same form, for dry runs.
func (t *target) run() string {
	if t.journal == nil {
		return strings.Repeat("0", 32)
	}
	return t.journal.Run
}

// tags returns the user's tags and those of this package, sorted by key.
func (t *target) tags(token string) []types.Tag {
	p := t.publisher
	all := map[string]string{"Name": p.options.Name}
	maps.Copy(all, p.options.Tags)
	all[TagContent], all[TagToken], all[TagDisk], all[tagRun] = p.content, token, diskTag(p.disk.Name), t.run()
	var tags []types.Tag
	for _, key := range slices.Sorted(maps.Keys(all)) {
		tags = append(tags, types.Tag{Key: aws.String(key), Value: aws.String(all[key])})
	}
	return tags
}

// launcher returns what tests the image.
func (t *target) launcher() launcher {
	o := &t.publisher.options
	return launcher{
		options: o.Launch, instances: t.aws.instances, journal: t.journal, step: t.step,
		image: t.image.Image, architecture: string(o.Architecture), tags: o.Tags,
	}
}

// testImage tests the image with an instance, if the options ask for it.
// Otherwise it terminates the instance of a run that was killed.
func testImage(ctx context.Context, t *target) error {
	if t.publisher.options.Launch == nil {
		return t.launcher().stop(ctx)
	}
	if err := t.launcher().test(ctx); err != nil {
		return err
	}
	t.image.Tested = true
	return nil
}

// tagValue returns the value of a tag, or "".
func tagValue(tags []types.Tag, key string) string {
	for _, t := range tags {
		if aws.ToString(t.Key) == key {
			return aws.ToString(t.Value)
		}
	}
	return ""
}

// diskTag returns a file's name without its folder, as a valid tag value.
func diskTag(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	return strings.Map(func(c rune) rune {
		if c < 0x80 && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(" +-=._:/@", c)) {
			return c
		}
		return '_'
	}, name[:min(len(name), 255)])
}
