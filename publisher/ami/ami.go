// Package ami makes Amazon Machine Images of disks.
//
// A publish is identified by a token: the digest of the disk's content and of
// all settings. Snapshots and images carry it as a tag, so a publish finds what
// an earlier one has made, on any machine. What a run makes is noted in a
// journal on this machine before AWS is asked for it; a run that was killed is
// continued from there, one that fails undoes what it made.
package ami

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"golang.org/x/time/rate"

	"github.com/slipway-build/slipway/publisher/disk"
)

// Tags on snapshots and images.
const (
	TagContent = "slipway:content" // digest of the disk
	TagToken   = "slipway:token"   // what was published, with all settings
	tagRun     = "slipway:run"     // the run that made it
	TagDisk    = "slipway:disk"    // name of the disk's file: what --parent auto goes by
	tagBlocks  = "slipway:blocks:" // and a number: a piece of the manifest
)

// Method is a way for a disk into a snapshot.
type Method string

// Methods.
const (
	EBS    Method = "ebs"    // EBS direct APIs: blocks
	Import Method = "import" // S3 and ImportSnapshot
)

// Options say what to publish, and how. Name is needed; the zero value of the
// rest is the default.
type Options struct {
	Name     string   // of the AMI: 3 to 128 characters, one per region and account
	Regions  []string // default: that of the configuration
	Method   Method   // default: EBS
	Copy     bool     // upload to the first region only, copy to the others
	Bucket   string   // for Import
	Role     string   // for Import; default: vmimport
	Parent   string   // a snapshot, "auto", or none
	KMSKey   string   // ARN of the key that encrypts
	Encrypt  bool
	Size     int64             // of the volume, GiB; default: the disk's, rounded up
	Volume   types.VolumeType  // default: gp3
	Tags     map[string]string // on images and snapshots
	Register ec2.RegisterImageInput
	Machine  disk.Architecture // default: from the disk

	Share          []string      // accounts, ARNs of organizations or units, or "all"
	DeprecateAfter time.Duration // from now
	SSMParameter   string        // gets the id of the AMI

	Keep    bool          // do not undo after a failure
	State   string        // directory of the journals
	Workers int           // requests under way at most; default 128
	Rate    float64       // blocks per second and region; default 950
	Timeout time.Duration // of one attempt; default 20 s

	Monitor *Monitor
}

// Monitor follows a publish. Its numbers only grow.
type Monitor struct {
	Blocks  atomic.Int64 // to write
	Written atomic.Int64
	Bytes   atomic.Int64 // uploaded
	Skipped atomic.Int64 // blocks that need no writing
	Retries atomic.Int64
	Step    func(region, step string) // may be nil; called from any goroutine
}

// Image is the result in one region.
type Image struct {
	Region   string   `json:"region"`
	Image    string   `json:"image"`
	Snapshot string   `json:"snapshot"`
	Existing bool     `json:"existing"` // nothing was made
	Blocks   *Blocks  `json:"blocks,omitempty"`
	BootMode string   `json:"bootMode"`
	Machine  string   `json:"architecture"`
	Notes    []string `json:"notes,omitempty"`
}

// Blocks counts the blocks of 512 KiB of an upload.
type Blocks struct {
	Total   int    `json:"total"`   // of the disk
	Written int    `json:"written"` // by this run
	Resumed int    `json:"resumed"` // by a run before, that this one continued
	Skipped int    `json:"skipped"` // zero, or as in the parent
	Parent  string `json:"parent,omitempty"`
}

// Result is what was published.
type Result struct {
	Name    string   `json:"name"`
	Content string   `json:"content"`
	Images  []*Image `json:"images"`
}

// publisher is one publish in all regions.
type publisher struct {
	Options
	disk    *disk.Disk
	content string
	token   string // of the image
	source  string // token of the snapshot
	buffers chan *[disk.BlockSize]byte
	http    aws.HTTPClient
}

// region is one publish in one region.
type region struct {
	*publisher
	name string
	caller
	ec2 *ec2.Client
	ebs *ebs.Client
	s3  *s3.Client
	ssm *ssm.Client

	rate   *rate.Limiter
	window *window

	journal *journal
	out     *Image
}

var validName = regexp.MustCompile(`^[A-Za-z0-9()\[\] ./\-'@_]{3,128}$`)

// Check completes and checks options against a disk. Warnings come with the
// default of a publish that will work.
func (o *Options) Check(d *disk.Disk) ([]string, error) {
	if !validName.MatchString(o.Name) {
		return nil, fail(Usage, "the name %q is none that EC2 takes: 3 to 128 letters, digits and ()[] ./-'@_", o.Name)
	}
	if o.Method == "" {
		o.Method = EBS
	}
	if o.Volume == "" {
		o.Volume = types.VolumeTypeGp3
	}
	if o.Role == "" {
		o.Role = "vmimport"
	}
	if o.Workers == 0 {
		o.Workers = 128
	}
	if o.Rate == 0 {
		o.Rate = 950
	}
	if o.Timeout == 0 {
		o.Timeout = 20 * time.Second
	}
	if o.Monitor == nil {
		o.Monitor = new(Monitor)
	}
	if o.KMSKey != "" {
		o.Encrypt = true
	}
	least := (d.Size + 1<<30 - 1) >> 30
	if o.Size == 0 {
		o.Size = least
	}
	switch {
	case o.Method != EBS && o.Method != Import:
		return nil, fail(Usage, "the method %q is none: use ebs or import", o.Method)
	case o.Method == Import && o.Bucket == "":
		return nil, fail(Usage, "the method import needs a bucket in the same region: --bucket NAME")
	case o.Method == Import && o.Parent != "":
		return nil, fail(Usage, "only the method ebs can use a parent")
	case o.Method == Import && len(o.Regions) > 1 && !o.Copy:
		return nil, fail(Usage, "the method import can upload to one region only, that of its bucket: add --copy")
	case strings.HasPrefix(o.Parent, "snap-") && len(o.Regions) > 1 && !o.Copy:
		return nil, fail(Usage, "a parent is in one region: use --parent auto, or --copy")
	case o.KMSKey != "" && !strings.HasPrefix(o.KMSKey, "arn:"):
		return nil, fail(Usage, "the key %q must be given by its ARN: arn:aws:kms:REGION:ACCOUNT:key/ID", o.KMSKey)
	case o.Size < least:
		return nil, fail(Usage, "a volume of %d GiB is smaller than the disk; it needs %d", o.Size, least)
	}
	return o.checkBoot(d)
}

func (o *Options) checkBoot(d *disk.Disk) ([]string, error) {
	boot, err := d.Boot()
	if err != nil {
		return nil, &Error{Input, err}
	}
	if o.Machine == "" {
		o.Machine = disk.Architecture(o.Register.Architecture)
	}
	if o.Machine == "" {
		switch {
		case len(boot.UEFI) == 1:
			o.Machine = boot.UEFI[0]
		case len(boot.UEFI) > 1:
			return nil, fail(Usage, "%s boots on %v: choose one by --arch", d.Name, boot.UEFI)
		case boot.BIOS:
			o.Machine = disk.AMD64
		default:
			return nil, fail(Input, "%s has nothing that boots: neither EFI/BOOT/BOOTX64.EFI or BOOTAA64.EFI on an EFI system partition nor boot code for BIOS; build it with --target raw", d.Name)
		}
	}
	can := boot.Mode(o.Machine)
	want := string(o.Register.BootMode)
	switch {
	case want == "" && can == "":
		return nil, fail(Input, "%s has nothing that boots on %s; build it for that platform, or give its own by --arch", d.Name, o.Machine)
	case want == "":
		o.Register.BootMode = types.BootModeValues(can)
	case want != can && can != "uefi-preferred":
		return nil, fail(Input, "%s cannot boot as %s on %s: the boot mode it has is %q; leave out --boot-mode", d.Name, want, o.Machine, can)
	}
	if o.Register.TpmSupport != "" && o.Register.BootMode != types.BootModeValuesUefi {
		return nil, fail(Usage, "TpmSupport needs the boot mode uefi: add --boot-mode uefi")
	}
	return boot.Warnings, nil
}

// Publish makes an AMI of the disk in each region. Check must have passed. If it
// fails or ctx is cancelled, what this run has made is removed, unless Keep.
func Publish(ctx context.Context, cfg aws.Config, d *disk.Disk, o Options) (*Result, error) {
	p, err := newPublisher(cfg, d, o)
	if err != nil {
		return nil, err
	}
	direct, copies := p.regions(cfg)
	all := slices.Concat(direct, copies)
	defer func() {
		for _, r := range all {
			if r.journal != nil {
				r.journal.close(false)
			}
		}
	}()

	err = each(ctx, direct, (*region).publish)
	if err == nil {
		err = each(ctx, copies, func(r *region, ctx context.Context) error { return r.copyFrom(ctx, direct[0]) })
	}
	if err == nil {
		err = each(ctx, all, (*region).finish)
	}
	if err != nil {
		return nil, p.clean(ctx, direct, copies, err)
	}
	result := &Result{Name: o.Name, Content: "sha256:" + p.content}
	for _, r := range all {
		result.Images = append(result.Images, r.out)
		if err := r.journal.close(true); err != nil {
			return nil, err
		}
		r.journal = nil
	}
	return result, nil
}

// Preflight checks what can be checked without making anything: credentials,
// the name, and the permission for what EC2 lets one try dry.
func Preflight(ctx context.Context, cfg aws.Config, d *disk.Disk, o Options) (*Result, error) {
	p, err := newPublisher(cfg, d, o)
	if err != nil {
		return nil, err
	}
	direct, copies := p.regions(cfg)
	all := slices.Concat(direct, copies)
	err = each(ctx, all, func(r *region, ctx context.Context) error {
		found, err := r.existing(ctx)
		if err != nil || found {
			return err
		}
		return r.mayRegister(ctx)
	})
	if err != nil {
		return nil, err
	}
	result := &Result{Name: o.Name, Content: "sha256:" + p.content}
	for _, r := range all {
		result.Images = append(result.Images, r.out)
	}
	return result, nil
}

func newPublisher(cfg aws.Config, d *disk.Disk, o Options) (*publisher, error) {
	if len(o.Regions) == 0 && cfg.Region != "" {
		o.Regions = []string{cfg.Region}
	}
	if len(o.Regions) == 0 {
		return nil, fail(Region, "no region: use --region, or set AWS_REGION")
	}
	if o.State == "" {
		dir, err := stateDir()
		if err != nil {
			return nil, err
		}
		o.State = dir
	}
	p := &publisher{Options: o, disk: d, content: d.Digest(), buffers: make(chan *[disk.BlockSize]byte, o.Workers)}
	for range o.Workers {
		p.buffers <- nil // made when first needed
	}
	snapshot := []any{p.content, o.Size, o.Encrypt, o.KMSKey}
	if strings.HasPrefix(o.Parent, "snap-") { // decides on the encryption
		snapshot = append(snapshot, o.Parent)
	}
	p.source = digest(snapshot)
	p.token = digest([]any{p.source, o.Name, o.image("", false)})
	p.http = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
		// One connection of HTTP/2 carries less than many of HTTP/1.1.
		t.ForceAttemptHTTP2 = false
		t.Protocols = new(http.Protocols)
		t.Protocols.SetHTTP1(true)
		t.MaxIdleConns = 0
		t.MaxIdleConnsPerHost = o.Workers
		t.ResponseHeaderTimeout = o.Timeout
		t.WriteBufferSize = 64 << 10
	})
	return p, nil
}

// stateDir follows the XDG Base Directory Specification 0.8.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "slipway"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fail(Usage, "no place for the state: %v; use --state DIR", err)
	}
	return filepath.Join(home, ".local", "state", "slipway"), nil
}

// digest identifies settings.
func digest(of any) string {
	text, err := json.Marshal(of)
	if err != nil {
		panic(err) // plain structs
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// regions makes the clients: for the regions that are uploaded to, and for
// those that are copied to.
func (p *publisher) regions(cfg aws.Config) (direct, copies []*region) {
	for i, name := range p.Regions {
		r := newRegion(cfg, name, p.http, p.Timeout, p.Monitor)
		r.publisher = p
		r.out = &Image{Region: name, BootMode: string(p.Register.BootMode), Machine: string(p.Machine)}
		r.rate, r.window = rate.NewLimiter(rate.Limit(p.Rate), max(1, int(p.Rate/20))), newWindow(p.Workers)
		r.caller.failed = func(err error) {
			if isThrottle(err) || errors.Is(err, context.DeadlineExceeded) {
				r.window.shrink()
			}
		}
		if p.Copy && i > 0 {
			copies = append(copies, r)
		} else {
			direct = append(direct, r)
		}
	}
	return direct, copies
}

func newRegion(cfg aws.Config, name string, client aws.HTTPClient, timeout time.Duration, monitor *Monitor) *region {
	cfg = cfg.Copy()
	cfg.Region, cfg.HTTPClient = name, client
	single := cfg.Copy()
	single.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return &region{
		name:   name,
		caller: caller{attempt: timeout, retries: &monitor.Retries},
		ec2:    ec2.NewFromConfig(single),
		ebs:    ebs.NewFromConfig(single),
		ssm:    ssm.NewFromConfig(single),
		// The transfer manager leaves it to its client to send parts again.
		s3: s3.NewFromConfig(cfg, func(o *s3.Options) {
			o.UsePathStyle = o.BaseEndpoint != nil
			o.Retryer = retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.MaxBackoff, o.RateLimiter = 24, longest, ratelimit.None // until patience would end
			})
		}),
	}
}

// each works in all regions at once; the first failure ends all.
func each(ctx context.Context, regions []*region, work func(*region, context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, r := range regions {
		group.Go(func() {
			if err := work(r, ctx); err != nil {
				if len(regions) > 1 {
					err = fmt.Errorf("%s: %w", r.name, err)
				}
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// clean undoes after a failure, and adds to the error what could not be undone.
func (p *publisher) clean(ctx context.Context, direct, copies []*region, cause error) error {
	if p.Keep {
		for _, r := range slices.Concat(direct, copies) {
			if r.journal != nil && (r.journal.Start != nil || r.journal.Object != "" || r.journal.Copy != nil) {
				return &Error{ClassOf(cause), fmt.Errorf("%w (what was made is kept: the same command goes on from there)", cause)}
			}
		}
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var mu sync.Mutex
	var left []string
	undo := func(r *region, ctx context.Context) error {
		if r.journal == nil {
			return nil
		}
		err := r.undo(ctx)
		if err == nil {
			err = r.journal.close(true)
			r.journal = nil
		}
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			left = append(left, fmt.Sprintf("%s: %v", r.name, err))
		}
		return nil
	}
	// A copy of which the answer was lost can be found as long as its source is there.
	each(ctx, copies, undo)
	each(ctx, direct, undo)
	if left != nil {
		slices.Sort(left)
		return &Error{ClassOf(cause), fmt.Errorf("%w; not all could be undone (%s): run the same command again, or slipway-publish aws gc", cause, strings.Join(left, "; "))}
	}
	return cause
}

func (r *region) step(format string, args ...any) {
	if r.Monitor.Step != nil {
		r.Monitor.Step(r.name, fmt.Sprintf(format, args...))
	}
}
