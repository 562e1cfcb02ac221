package ami

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/slipway-build/slipway/publisher/disk"
)

// A Publisher publishes one disk.
type Publisher struct {
	options  Options
	disk     *disk.Disk
	warnings []string

	content string // digest of the disk
	secrets secrets

	// buffers bounds the memory for blocks under way, in all regions.
	buffers chan *[disk.BlockSize]byte
}

// New completes the options with their defaults and checks them against the
// disk. It does not call AWS. The disk must stay open while the Publisher is in
// use.
func New(d *disk.Disk, o Options) (*Publisher, error) {
	if err := o.complete(d); err != nil {
		return nil, err
	}
	if err := o.check(d); err != nil {
		return nil, err
	}
	warnings, err := o.checkBoot(d)
	if err != nil {
		return nil, err
	}
	p := &Publisher{options: o, disk: d, warnings: warnings, content: d.Digest(), buffers: make(chan *[disk.BlockSize]byte, o.Workers)}
	for range o.Workers {
		p.buffers <- nil // allocated on first use
	}
	if o.Name == "" {
		_, token := p.tokens(o.KMSKey)
		if len(o.KMSKeys) > 0 {
			token = digest([]any{token, o.KMSKeys})
		}
		p.options.Name = defaultName(d.Name, token)
	}
	return p, nil
}

// tokens identify the snapshot, by its content and encryption, and the image,
// by all settings too. Description and tags may change.
func (p *Publisher) tokens(key string) (snapshot, image string) {
	o := &p.options
	source := []any{p.content, o.VolumeSize, o.Encrypt, key}
	if strings.HasPrefix(o.Parent, "snap-") { // a child inherits its parent's encryption
		source = append(source, o.Parent)
	}
	snapshot = digest(source)
	settings := o.registration()
	settings.Description, settings.TagSpecifications = nil, nil
	return snapshot, digest([]any{snapshot, o.Name, settings})
}

// digest identifies settings.
func digest(settings any) string {
	text, err := json.Marshal(settings)
	if err != nil {
		panic(err) // strings, numbers and structs of the SDK
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Options returns the completed options.
func (p *Publisher) Options() Options { return p.options }

// Warnings returns what may keep the disk from working on EC2, one line each.
func (p *Publisher) Warnings() []string { return p.warnings }

// Publish makes an AMI of the disk in each region. If it fails or ctx is
// canceled, it removes what this run made, unless Keep is set. With KeepGoing, it
// can return both the images in some regions and the errors of the others.
func (p *Publisher) Publish(ctx context.Context, cfg aws.Config) (*Result, error) {
	if err := p.checkSecrets(ctx); err != nil {
		return nil, err
	}
	direct, copies, err := p.targets(cfg)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(direct, copies)
	defer func() {
		for _, t := range all {
			if t.journal != nil {
				t.journal.close(false)
			}
		}
	}()

	if p.options.KeepGoing {
		return p.publishEach(ctx, direct, copies)
	}
	// The names and permissions in all regions, before the first upload.
	err = each(ctx, copies, func(ctx context.Context, t *target) error { return preflight(ctx, t, direct[0]) })
	if err == nil {
		err = each(ctx, direct, publish)
	}
	if err == nil {
		err = each(ctx, copies, func(ctx context.Context, t *target) error { return copyFrom(ctx, t, direct[0]) })
	}
	if err == nil {
		err = each(ctx, all, testImage)
	}
	if err == nil {
		err = each(ctx, all, finish)
	}
	if err == nil {
		err = each(ctx, all, protect)
	}
	if err != nil {
		return nil, p.cleanUp(ctx, direct, copies, err)
	}
	for _, t := range all {
		if err := t.journal.close(true); err != nil {
			return nil, err
		}
		t.journal = nil
	}
	return p.result(all), nil
}

// Preflight makes the checks that precede an upload, with the same requests as
// dry runs, and changes nothing. The EBS direct APIs have no dry run.
func (p *Publisher) Preflight(ctx context.Context, cfg aws.Config) (*Result, error) {
	if err := p.checkSecrets(ctx); err != nil {
		return nil, err
	}
	direct, copies, err := p.targets(cfg)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(direct, copies)
	err = each(ctx, all, func(ctx context.Context, t *target) error {
		var source *target
		if slices.Contains(copies, t) {
			source = direct[0]
		}
		return preflight(ctx, t, source)
	})
	if err != nil {
		return nil, err
	}
	return p.result(all), nil
}

// publishEach makes the images independently of each other. A copy depends on
// its source.
func (p *Publisher) publishEach(ctx context.Context, direct, copies []*target) (*Result, error) {
	var mu sync.Mutex
	failed := map[*target]error{}
	// step works on those of the targets that have not failed yet.
	step := func(targets []*target, work func(context.Context, *target) error) {
		var group sync.WaitGroup
		rest := slices.DeleteFunc(slices.Clone(targets), func(t *target) bool { return failed[t] != nil })
		for _, t := range rest {
			group.Go(func() {
				if err := work(ctx, t); err != nil {
					err = p.cleanUp(ctx, []*target{t}, nil, fmt.Errorf("%s: %w", t.region, err))
					mu.Lock()
					defer mu.Unlock()
					failed[t] = err
				}
			})
		}
		group.Wait()
	}
	step(direct, publish)
	source := failed[direct[0]]
	step(copies, func(ctx context.Context, t *target) error {
		if source != nil {
			return &Error{ClassOf(source), fmt.Errorf("there is no image in %s to copy", direct[0].region)}
		}
		if err := preflight(ctx, t, direct[0]); err != nil {
			return err
		}
		return copyFrom(ctx, t, direct[0])
	})
	all := slices.Concat(direct, copies)
	step(all, testImage)
	step(all, finish)
	step(all, protect)
	step(all, func(_ context.Context, t *target) error {
		err := t.journal.close(true)
		t.journal = nil
		return err
	})

	var made []*target
	var errs []error
	for _, t := range all {
		if err := failed[t]; err != nil {
			errs = append(errs, err)
		} else {
			made = append(made, t)
		}
	}
	if made == nil {
		return nil, errors.Join(errs...)
	}
	return p.result(made), errors.Join(errs...)
}

// preflight looks for the image and inspects a target without a journal.
func preflight(ctx context.Context, t, source *target) error {
	found, err := registrar{t}.find(ctx)
	if err != nil {
		return err
	}
	return inspect(ctx, t, source, found)
}

// targets returns the regions to upload to and those to copy to.
func (p *Publisher) targets(cfg aws.Config) (direct, copies []*target, err error) {
	regions, err := resolveRegions(cfg, p.options.Regions)
	if err != nil {
		return nil, nil, err
	}
	o := &p.options
	client := newHTTPClient(cfg, o.Workers)
	for i, region := range regions {
		key, err := o.keyOf(region)
		if err != nil {
			return nil, nil, err
		}
		t := &target{
			publisher: p,
			region:    region,
			aws:       connect(cfg, region, client, limits{o.Timeout, o.Workers, o.Rate, &o.Monitor.Retries}),
			key:       key,
			image:     &Image{Region: region, BootMode: string(o.Register.BootMode), Architecture: string(o.Architecture)},
		}
		t.snapshotToken, t.imageToken = p.tokens(key)
		if o.Copy && i > 0 {
			copies = append(copies, t)
		} else {
			direct = append(direct, t)
		}
	}
	return direct, copies, nil
}

// each works on all targets concurrently. The first failure cancels the others.
func each(ctx context.Context, targets []*target, work func(context.Context, *target) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, t := range targets {
		group.Go(func() {
			if err := work(ctx, t); err != nil {
				if len(targets) > 1 {
					err = fmt.Errorf("%s: %w", t.region, err)
				}
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// publish uploads the disk to one region and registers the image.
func publish(ctx context.Context, t *target) error {
	if err := t.open(ctx); err != nil {
		return err
	}
	r := registrar{t}
	found, err := r.find(ctx)
	if err != nil {
		return err
	}
	if err := inspect(ctx, t, nil, found); err != nil {
		return err
	}
	if found {
		if t.image.Existing { // what a killed run left in the journal is obsolete
			if err := undo(ctx, t); err != nil {
				return err
			}
		}
		return r.wait(ctx)
	}
	if t.image.Snapshot, err = (snapshotter{t}).run(ctx); err != nil {
		return err
	}
	if err := r.register(ctx); err != nil {
		return err
	}
	return r.wait(ctx)
}

// copyFrom copies the image of another region.
func copyFrom(ctx context.Context, t, source *target) error {
	if err := t.open(ctx); err != nil {
		return err
	}
	r := registrar{t}
	found, err := r.find(ctx)
	if err != nil {
		return err
	}
	if !found {
		if err := r.copy(ctx, source); err != nil {
			return err
		}
	}
	return r.wait(ctx)
}

// cleanUp undoes what a failed run made, unless AWS is still making what the
// next run wants. It returns the cause of the failure, with what could not be
// undone.
func (p *Publisher) cleanUp(ctx context.Context, direct, copies []*target, cause error) error {
	if p.options.Keep || errors.Is(cause, errPending) {
		all := slices.Concat(direct, copies)
		for _, t := range all {
			if j := t.journal; j != nil && j.Launch != nil && !j.Launch.Ended { // the test could not terminate it
				return &Error{ClassOf(cause), fmt.Errorf("%w; the instance %s in %s may be running: run the same command again to continue, or terminate it with slipway-publish aws gc", cause, j.Launch.Instance, t.region)}
			}
		}
		for _, t := range all {
			if t.journal != nil && (t.journal.Start != nil || t.journal.Object != "" || t.journal.Copy != nil || t.journal.Register) {
				return &Error{ClassOf(cause), fmt.Errorf("%w; run the same command again to continue", cause)}
			}
		}
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*patience)
	defer cancel()
	var mu sync.Mutex
	var left []string
	undoOne := func(ctx context.Context, t *target) error {
		if t.journal == nil {
			return nil
		}
		err := undo(ctx, t)
		if err == nil {
			err = t.journal.close(true)
			t.journal = nil
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			left = append(left, t.region+": "+strings.ReplaceAll(err.Error(), "\n", "; "))
		}
		return nil
	}
	// A copy whose response was lost can be found only while its source exists.
	each(ctx, copies, undoOne)
	each(ctx, direct, undoOne)
	if left != nil {
		slices.Sort(left)
		return &Error{ClassOf(cause), fmt.Errorf("%w; could not undo everything (%s): run the same command again, or slipway-publish aws gc", cause, strings.Join(left, "; "))}
	}
	return cause
}

func (p *Publisher) result(targets []*target) *Result {
	result := &Result{Name: p.options.Name, Content: "sha256:" + p.content}
	for _, t := range targets {
		result.Images = append(result.Images, t.image)
	}
	return result
}
