package ami_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/time/rate"

	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

const home = "us-east-1"

// content returns a disk that boots with BIOS. Every third block is zero, the
// others are random.
func content(seed uint64, blocks int) []byte {
	data := make([]byte, blocks*disk.BlockSize)
	random := rand.NewChaCha8([32]byte{byte(seed)})
	for i := range blocks {
		if i%3 != 2 {
			random.Read(data[i*disk.BlockSize:][:disk.BlockSize])
		}
	}
	clear(data[446:512])
	data[446] = 0x80                                       // an active partition
	copy(data[450:], []byte{0x83, 0, 0, 0, 8, 0, 0, 0, 8}) // from sector 8
	copy(data[510:], "\x55\xaa")
	return data
}

func write(t testing.TB, data []byte) *disk.Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "machine.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func open(t testing.TB, path string) *disk.Disk {
	t.Helper()
	d, err := disk.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// configure returns the configuration that the environment of the fake stands
// for.
func configure(t testing.TB, fake *awstest.Server) aws.Config {
	t.Helper()
	env := map[string]string{}
	for _, pair := range fake.Env() {
		key, value, _ := strings.Cut(pair, "=")
		env[key] = value
	}
	options := []func(*config.LoadOptions) error{
		config.WithBaseEndpoint(fake.URL()), config.WithRegion(home),
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.DialContext = fake.DialContext })),
		config.WithSharedConfigFiles(nil), config.WithSharedCredentialsFiles(nil),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"], env["AWS_SESSION_TOKEN"])),
	}
	if path := env["AWS_CA_BUNDLE"]; path != "" {
		bundle, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, config.WithCustomCABundle(bytes.NewReader(bundle)))
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// publish publishes a disk with the default options of the tests.
func publish(ctx context.Context, t testing.TB, fake *awstest.Server, d *disk.Disk, o ami.Options) (*ami.Result, error) {
	t.Helper()
	if o.Name == "" {
		o.Name = "machine-1"
	}
	if o.State == "" {
		o.State = t.TempDir()
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	p, err := ami.New(d, o)
	if err != nil {
		return nil, err
	}
	return p.Publish(ctx, configure(t, fake))
}

func mustPublish(t testing.TB, fake *awstest.Server, d *disk.Disk, o ami.Options) *ami.Result {
	t.Helper()
	result, err := publish(t.Context(), t, fake, d, o)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// equal compares the content of a snapshot with the disk.
func equal(t testing.TB, fake *awstest.Server, region, snapshot string, data []byte) {
	t.Helper()
	volume, err := fake.Disk(region, snapshot)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data))
	if _, err := volume.ReadAt(got, 0); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		for i := 0; i < len(data); i += disk.BlockSize {
			if end := min(i+disk.BlockSize, len(data)); !bytes.Equal(got[i:end], data[i:end]) {
				t.Fatalf("%s: block %d differs", snapshot, i/disk.BlockSize)
			}
		}
	}
}

// start starts a fake of AWS. No request of the test may be invalid.
func start(t testing.TB, knobs awstest.Knobs) *awstest.Server {
	t.Helper()
	fake := awstest.StartTLS(t, knobs)
	t.Cleanup(func() {
		for _, v := range fake.Violations() {
			t.Error(v)
		}
	})
	return fake
}

func noOrphans(t testing.TB, fake *awstest.Server) {
	t.Helper()
	if left := fake.Orphans(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPublish(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{Grace: 300 * time.Millisecond, Settle: 300 * time.Millisecond, Flap: time.Second})
	data := content(1, 20)
	result := mustPublish(t, fake, write(t, data), ami.Options{Tags: map[string]string{"Team": "infra"}})
	image := result.Images[0]
	equal(t, fake, home, image.Snapshot, data)
	if want := (ami.Blocks{Total: 20, Written: 14, Skipped: 6}); *image.Blocks != want {
		t.Errorf("blocks: got %+v, want %+v", *image.Blocks, want)
	}
	if image.BootMode != "legacy-bios" || image.Architecture != "x86_64" || image.Existing {
		t.Errorf("got %+v", image)
	}
	snapshot := fake.Snapshots()[0]
	if snapshot.Tags["Team"] != "infra" || snapshot.Tags[ami.TagContent] == "" || snapshot.Tags["Name"] != "machine-1" {
		t.Errorf("tags of the snapshot: %v", snapshot.Tags)
	}
	noOrphans(t, fake)
}

func TestPublishAgainFindsTheImage(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 4)
	first := mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
	puts := fake.Count("ebs:PutSnapshotBlock")
	second := mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
	if !second.Existing || second.Image != first.Image {
		t.Errorf("got %+v, want %s", second, first.Image)
	}
	// The same disk with another name needs no upload either.
	third := mustPublish(t, fake, write(t, data), ami.Options{Name: "machine-2"}).Images[0]
	if third.Existing || third.Image == first.Image || third.Snapshot != first.Snapshot {
		t.Errorf("got %+v, want a new image of %s", third, first.Snapshot)
	}
	if got := fake.Count("ebs:PutSnapshotBlock"); got != puts {
		t.Errorf("%d blocks were written twice", got-puts)
	}
}

func TestNameTaken(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	mustPublish(t, fake, write(t, content(1, 4)), ami.Options{})
	for what, o := range map[string]ami.Options{
		"another disk":   {},
		"other settings": {VolumeType: "gp2"},
	} {
		seed := uint64(2)
		if o.VolumeType != "" {
			seed = 1
		}
		_, err := publish(t.Context(), t, fake, write(t, content(seed, 4)), o)
		if ami.ClassOf(err) != ami.ClassNameTaken {
			t.Errorf("%s: got %v", what, err)
		}
	}
	noOrphans(t, fake)
}

func TestEncryptedWritesZeros(t *testing.T) {
	t.Parallel()
	for what, run := range map[string]struct {
		knobs   awstest.Knobs
		options ami.Options
	}{
		"asked":            {awstest.Knobs{}, ami.Options{Encrypt: true}},
		"account settings": {awstest.Knobs{EncryptByDefault: true}, ami.Options{}},
	} {
		t.Run(what, func(t *testing.T) {
			fake := start(t, run.knobs)
			data := content(1, 8)
			image := mustPublish(t, fake, write(t, data), run.options).Images[0]
			equal(t, fake, home, image.Snapshot, data)
			if image.Blocks.Written != 8 {
				t.Errorf("wrote %d of 8 blocks", image.Blocks.Written)
			}
		})
	}
}

// TestDiskMap publishes an encrypted disk with a map that marks one of its zero
// blocks free.
func TestDiskMap(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 6) // blocks 2 and 5 are zero
	path := filepath.Join(t.TempDir(), "machine.raw")
	m := diskmap.Map{Version: diskmap.Version, Size: int64(len(data)), Extents: []diskmap.Extent{
		{Offset: 0, Length: 5 * disk.BlockSize, Type: diskmap.Data},
		{Offset: 5 * disk.BlockSize, Length: disk.BlockSize, Type: diskmap.Free},
	}}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{path: data, path + ".map": text.Bytes()} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := mustPublish(t, fake, open(t, path), ami.Options{Encrypt: true}).Images[0]
	equal(t, fake, home, base.Snapshot, data[:5*disk.BlockSize])
	if base.Blocks.Written != 5 {
		t.Errorf("wrote %d blocks, want 5: all but the free one", base.Blocks.Written)
	}
	// A child would inherit data in the free block, so that block is zeroed.
	before := content(2, 6)
	copy(before[5*disk.BlockSize:], "secret")
	parent := mustPublish(t, fake, write(t, before), ami.Options{Name: "machine-2", Encrypt: true}).Images[0]
	child := mustPublish(t, fake, open(t, path), ami.Options{Name: "machine-3", Encrypt: true, Parent: parent.Snapshot}).Images[0]
	equal(t, fake, home, child.Snapshot, data)

	// The first run wrote the free block, because it had no map.
	o := ami.Options{Name: "machine-4", Encrypt: true, Keep: true, VolumeSize: 2, State: t.TempDir()}
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ebs:CompleteSnapshot"}})
	if _, err := publish(t.Context(), t, fake, write(t, data), o); ami.ClassOf(err) != ami.ClassPermission {
		t.Fatal(err)
	}
	fake.SetKnobs(awstest.Knobs{})
	again := mustPublish(t, fake, open(t, path), o).Images[0]
	equal(t, fake, home, again.Snapshot, data)
	if again.Blocks.Resumed != 6 {
		t.Errorf("continued with %+v", again.Blocks)
	}
}

func TestParent(t *testing.T) {
	t.Parallel()
	before := content(1, 12)
	after := bytes.Clone(before)
	after[3*disk.BlockSize+7]++                                // changed
	clear(after[4*disk.BlockSize : 5*disk.BlockSize])          // became zero
	copy(after[5*disk.BlockSize:], []byte("was a zero block")) // became data
	after = after[:10*disk.BlockSize]                          // the parent has a data block and a zero block beyond

	for _, parent := range []string{"auto", "snapshot", "without manifest"} {
		for _, encrypted := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s encrypted=%v", parent, encrypted), func(t *testing.T) {
				fake := start(t, awstest.Knobs{EncryptByDefault: encrypted})
				o := ami.Options{}
				if parent == "without manifest" {
					o.Tags = map[string]string{} // leaves no room for a manifest
					for i := range 45 {
						o.Tags[fmt.Sprint("tag-", i)] = "x"
					}
				}
				base := mustPublish(t, fake, write(t, before), o).Images[0]
				o = ami.Options{Name: "machine-2", Parent: "auto"}
				if parent == "snapshot" {
					o.Parent = base.Snapshot
				}
				next := mustPublish(t, fake, write(t, after), o).Images[0]
				equal(t, fake, home, next.Snapshot, append(bytes.Clone(after), make([]byte, 2*disk.BlockSize)...))
				if next.Blocks.Written != 4 || next.Blocks.Parent != base.Snapshot {
					t.Errorf("got %+v, want the 4 blocks that changed", next.Blocks)
				}
				if reads := fake.Count("ebs:GetSnapshotBlock"); (reads > 0) != (parent == "without manifest") {
					t.Errorf("%d blocks of the parent were read", reads)
				}
				noOrphans(t, fake)
			})
		}
	}
}

// TestManifests checks that the manifest leaves room for the tags of others, and
// that a later run, on any machine, reads few blocks of a parent whose manifest
// has groups.
func TestManifests(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 40*16*3/2) // 40 tags of 16 blocks
	path := filepath.Join(t.TempDir(), "machine.raw")
	for i, want := range []int{40 * 16, 1} {
		data[7] = byte(i)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		image := mustPublish(t, fake, open(t, path), ami.Options{Name: fmt.Sprint("machine-", i), Parent: "auto"}).Images[0]
		if image.Blocks.Written != want {
			t.Errorf("run %d: got %+v, want %d blocks", i, image.Blocks, want)
		}
	}
	// The group of the block that changed, the only one without a zero block.
	if reads := fake.Count("ebs:GetSnapshotBlock"); reads != 2 {
		t.Errorf("%d blocks of the parent were read, want 2", reads)
	}
	// A manifest that fits leaves 10 tags.
	mustPublish(t, fake, write(t, content(2, 30*16*3/2)), ami.Options{Name: "machine-3"})
	for _, s := range fake.Snapshots() {
		if len(s.Tags) > 40 {
			t.Errorf("%s has %d tags", s.ID, len(s.Tags))
		}
	}
}

// TestParentEncryption publishes a disk without encryption, with the default
// key and with another key. Then it publishes changed disks with parents.
func TestParentEncryption(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	const key = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-4333-8444-"
	base := func(o ami.Options) string {
		return mustPublish(t, fake, write(t, content(1, 6)), o).Images[0].Snapshot
	}
	plain := base(ami.Options{Name: "plain"})
	encrypted := base(ami.Options{Name: "encrypted", Encrypt: true})
	keyed := base(ami.Options{Name: "keyed", KMSKey: key + "000000000001"})

	after := content(1, 6)
	after[7]++
	for i, test := range []struct {
		options ami.Options
		always  bool // the account encrypts by default
		parent  string
		refused string
	}{
		{options: ami.Options{Parent: "auto"}, parent: plain},
		{options: ami.Options{Parent: "auto"}, always: true, parent: keyed}, // the newest
		{options: ami.Options{Parent: "auto", Encrypt: true}, parent: keyed},
		{options: ami.Options{Parent: "auto", KMSKey: key + "000000000001"}, parent: keyed},
		{options: ami.Options{Parent: "auto", KMSKey: key + "000000000002"}}, // no suitable parent
		{options: ami.Options{Parent: encrypted, Encrypt: true}, parent: encrypted},
		{options: ami.Options{Parent: encrypted}, parent: encrypted},
		{options: ami.Options{Parent: keyed, KMSKey: key + "000000000001"}, parent: keyed},
		{options: ami.Options{Parent: plain, Encrypt: true}, refused: plain + " is not encrypted"},
		{options: ami.Options{Parent: keyed, KMSKey: key + "000000000002"}, refused: "is encrypted with " + key + "000000000001"},
		{options: ami.Options{Parent: plain}, always: true, refused: "the account encrypts by default"},
	} {
		fake.SetKnobs(awstest.Knobs{EncryptByDefault: test.always})
		test.options.Name = fmt.Sprint("next-", i)
		after[8] = byte(i)
		result, err := publish(t.Context(), t, fake, write(t, after), test.options)
		if test.refused != "" {
			if err == nil || !strings.Contains(err.Error(), test.refused) {
				t.Errorf("%+v: got %v, want %q", test.options, err, test.refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", test.options, err)
			continue
		}
		image := result.Images[0]
		equal(t, fake, home, image.Snapshot, after)
		if image.Blocks.Parent != test.parent {
			t.Errorf("%+v: parent %q, want %q", test.options, image.Blocks.Parent, test.parent)
		}
		// Hide the snapshot from the next publish.
		fake.SetKnobs(awstest.Knobs{})
		client := ec2.NewFromConfig(configure(t, fake))
		if _, err := client.DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{image.Snapshot}, Tags: []types.Tag{{Key: aws.String(ami.TagDisk)}}}); err != nil {
			t.Fatal(err)
		}
	}
	noOrphans(t, fake)
}

func TestUnchangedWithParent(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 12)
	base := mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
	next := mustPublish(t, fake, write(t, data), ami.Options{Name: "machine-2", Parent: base.Snapshot}).Images[0]
	equal(t, fake, home, next.Snapshot, data)
	if next.Blocks.Written > 1 {
		t.Errorf("wrote %d blocks", next.Blocks.Written)
	}
}

func TestRegions(t *testing.T) {
	t.Parallel()
	for _, onlyCopy := range []bool{false, true} {
		t.Run(fmt.Sprintf("copy=%v", onlyCopy), func(t *testing.T) {
			fake := start(t, awstest.Knobs{Settle: 100 * time.Millisecond})
			data := content(1, 6)
			regions := []string{home, "eu-west-1", "ap-northeast-1"}
			result := mustPublish(t, fake, write(t, data), ami.Options{
				Regions: regions, Copy: onlyCopy, SSMParameter: "/machine/latest", DeprecateAfter: 24 * time.Hour, Share: []string{"111122223333"},
			})
			for i, image := range result.Images {
				if image.Region != regions[i] {
					t.Errorf("image %d is in %s", i, image.Region)
				}
				equal(t, fake, image.Region, image.Snapshot, data)
			}
			again := mustPublish(t, fake, write(t, data), ami.Options{Regions: regions, Copy: onlyCopy})
			for i, image := range again.Images {
				if !image.Existing || image.Image != result.Images[i].Image {
					t.Errorf("again: %+v", image)
				}
			}
			noOrphans(t, fake)
		})
	}
}

// TestRepeatedRegion publishes to a region that is named twice.
func TestRepeatedRegion(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	fake.CreateBucket(home, "disks")
	for i, o := range []ami.Options{
		{Regions: []string{home, home}},
		{Regions: []string{home, home}, Copy: true},
		{Regions: []string{home, home}, Method: ami.MethodImport, Bucket: "disks"},
	} {
		o.Name = fmt.Sprint("machine-", i)
		result, err := publish(ctx, t, fake, write(t, content(uint64(i), 4)), o)
		if err != nil {
			t.Fatal(err)
		}
		if len(result.Images) != 1 || result.Images[0].Region != home {
			t.Errorf("got %d images, want one in %s", len(result.Images), home)
		}
	}
	left, err := ami.GC(ctx, configure(t, fake), ami.GCOptions{Regions: []string{home, home}, Bucket: "disks", DryRun: true, OlderThan: -time.Minute})
	if err != nil || len(left) != 0 {
		t.Errorf("gc: %v, %v", left, err)
	}
	noOrphans(t, fake)
}

// TestDefaultName publishes without a name.
func TestDefaultName(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data, dir := content(1, 4), t.TempDir()
	names := map[string]bool{}
	for _, test := range []struct {
		file string
		o    ami.Options
		want string // start of the name
	}{
		{"web.raw", ami.Options{}, "web-"},
		{"web.raw", ami.Options{VolumeType: "gp2"}, "web-"},
		{"web $1.raw", ami.Options{}, "web 1-"},
		{strings.Repeat("long", 50) + ".raw", ami.Options{}, strings.Repeat("long", 28) + "lon-"},
	} {
		path := filepath.Join(dir, test.file)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		test.o.State, test.o.Timeout = t.TempDir(), 2*time.Second
		for again := range 2 {
			p, err := ami.New(open(t, path), test.o)
			if err != nil {
				t.Fatal(err)
			}
			result, err := p.Publish(t.Context(), configure(t, fake))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(result.Name, test.want) || len(result.Name) > 128 || p.Options().Name != result.Name {
				t.Errorf("got the name %q, want %q and a digest", result.Name, test.want)
			}
			if result.Images[0].Existing != (again == 1) {
				t.Errorf("%s, publish %d: existing: %v", result.Name, again+1, result.Images[0].Existing)
			}
			names[result.Name] = true
		}
	}
	if len(names) != 4 {
		t.Errorf("names are not unique: %v", names)
	}
}

func TestFailureInOneRegionUndoesAll(t *testing.T) {
	t.Parallel()
	for _, onlyCopy := range []bool{false, true} {
		fake := start(t, awstest.Knobs{BlockPublicAccess: true})
		state := t.TempDir()
		_, err := publish(t.Context(), t, fake, write(t, content(1, 6)), ami.Options{
			Regions: []string{home, "eu-west-1"}, Copy: onlyCopy, Share: []string{"all"}, State: state,
		})
		if err == nil {
			t.Fatal("sharing with all did not fail")
		}
		t.Log(err)
		empty(t, fake, state)
	}
}

// TestKeepGoing fails in one of three regions. The others keep their images.
func TestKeepGoing(t *testing.T) {
	t.Parallel()
	for _, onlyCopy := range []bool{false, true} {
		deny := `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"},
			{"Effect": "Deny", "Action": "ec2:EnableImageDeprecation", "Resource": "*", "Condition": {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}}]}`
		fake := start(t, awstest.Knobs{Policies: []string{deny}})
		data := content(1, 6)
		result, err := publish(t.Context(), t, fake, write(t, data), ami.Options{
			Regions: []string{home, "eu-west-1", "ap-northeast-1"}, Copy: onlyCopy, KeepGoing: true, DeprecateAfter: time.Hour,
		})
		if ami.ClassOf(err) != ami.ClassPermission || !strings.HasPrefix(err.Error(), "eu-west-1: ") {
			t.Errorf("got %v", err)
		}
		if result == nil || len(result.Images) != 2 {
			t.Fatalf("got %+v", result)
		}
		for _, image := range result.Images {
			equal(t, fake, image.Region, image.Snapshot, data)
		}
		if left := fake.Snapshots(); len(left) != 2 {
			t.Errorf("left behind: %v", left)
		}
		noOrphans(t, fake)
	}
}

// empty checks that a publish has left nothing in the account and in the state
// directory.
func empty(t testing.TB, fake *awstest.Server, state string) {
	t.Helper()
	if left := fake.Snapshots(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	noOrphans(t, fake)
	if files, _ := os.ReadDir(state); len(files) > 0 {
		t.Errorf("state left behind: %v", files)
	}
}

func TestMissingPermission(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{Denied: []string{"ec2:RegisterImage"}})
	_, err := publish(t.Context(), t, fake, write(t, content(1, 4)), ami.Options{})
	if ami.ClassOf(err) != ami.ClassPermission {
		t.Errorf("got %v", err)
	}
	if n := fake.Count("ebs:StartSnapshot"); n > 0 {
		t.Error("uploaded the disk without permission to register images")
	}
	for _, denied := range []string{"ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot"} {
		fake := start(t, awstest.Knobs{Denied: []string{denied}})
		state := t.TempDir()
		_, err := publish(t.Context(), t, fake, write(t, content(1, 4)), ami.Options{State: state})
		if ami.ClassOf(err) != ami.ClassPermission {
			t.Errorf("%s: got %v", denied, err)
		}
		empty(t, fake, state)
	}
}

// TestCABundle publishes over HTTPS without the certificate of the fake, which
// must fail at once. All other tests have it.
func TestCABundle(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	cfg := configure(t, fake)
	cfg.HTTPClient = nil
	p, err := ami.New(write(t, content(1, 4)), ami.Options{Name: "machine-1", State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := p.Publish(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("got %v, want what to do about the certificate", err)
	}
	if _, err := ami.GC(t.Context(), cfg, ami.GCOptions{}); err == nil || !strings.Contains(err.Error(), "AWS_CA_BUNDLE") {
		t.Errorf("gc: got %v, want what to do about the certificate", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("failed after %v", took)
	}
}

// TestLowRate uploads at a rate at which most blocks wait for longer than the
// limit of an attempt.
func TestLowRate(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 12) // of which 8 are not zero
	image := mustPublish(t, fake, write(t, data), ami.Options{Rate: 4, Timeout: time.Second, Workers: 16}).Images[0]
	equal(t, fake, home, image.Snapshot, data)
}

// slowConn limits the rate of all connections together.
type slowConn struct {
	net.Conn
	limit *rate.Limiter
}

func (c slowConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		piece := p[:min(len(p), 4<<10)]
		if err = c.limit.WaitN(context.Background(), len(piece)); err != nil {
			return n, err
		}
		var m int
		m, err = c.Conn.Write(piece)
		n, p = n+m, p[m:]
	}
	return n, err
}

// TestSlowLine publishes on a line that delivers one block within the limit of
// an attempt, but not the 16 of the first window: like 2 Mbit/s and 20 seconds.
func TestSlowLine(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	limit := rate.NewLimiter(1<<20, 4<<10)
	cfg := configure(t, fake)
	cfg.HTTPClient = cfg.HTTPClient.(*awshttp.BuildableClient).WithTransportOptions(func(t *http.Transport) {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			return slowConn{conn, limit}, err
		}
	})
	data := content(1, 27)
	p, err := ami.New(write(t, data), ami.Options{Name: "machine-1", State: t.TempDir(), Timeout: 1200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	result, err := p.Publish(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, fake, home, result.Images[0].Snapshot, data)
}

func TestQuota(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{PendingSnapshots: 1, Images: 1})
	mustPublish(t, fake, write(t, content(1, 4)), ami.Options{})
	state := t.TempDir()
	_, err := publish(t.Context(), t, fake, write(t, content(2, 4)), ami.Options{Name: "machine-2", State: state})
	if ami.ClassOf(err) != ami.ClassQuota {
		t.Errorf("got class %d: %v", ami.ClassOf(err), err)
	}
	noOrphans(t, fake)
}

// interrupt calls cancel after n blocks have been written.
func interrupt(fake *awstest.Server, cancel context.CancelFunc, n int) {
	knobs := fake.Knobs()
	knobs.Faults = func(awstest.Request) awstest.Fault {
		if fake.Count("ebs:PutSnapshotBlock") >= n {
			cancel()
		}
		return awstest.None
	}
	fake.SetKnobs(knobs)
}

func TestInterruptUndoes(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{Latency: 2 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	interrupt(fake, cancel, 10)
	state := t.TempDir()
	_, err := publish(ctx, t, fake, write(t, content(1, 60)), ami.Options{State: state, Workers: 4})
	if ami.ClassOf(err) != ami.ClassInterrupted {
		t.Errorf("got %v", err)
	}
	empty(t, fake, state)
}

func TestKeepContinues(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{Latency: 2 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	interrupt(fake, cancel, 20)
	state, data := t.TempDir(), content(1, 60)
	_, err := publish(ctx, t, fake, write(t, data), ami.Options{State: state, Keep: true, Workers: 4})
	if ami.ClassOf(err) != ami.ClassInterrupted {
		t.Errorf("got %v", err)
	}
	fake.SetKnobs(awstest.Knobs{})
	image := mustPublish(t, fake, write(t, data), ami.Options{State: state}).Images[0]
	equal(t, fake, home, image.Snapshot, data)
	if image.Blocks.Resumed < 10 {
		t.Errorf("got %+v, want at least 10 resumed blocks", image.Blocks)
	}
	if n := len(fake.Snapshots()); n != 1 {
		t.Errorf("%d snapshots", n)
	}
	noOrphans(t, fake)
}

// TestTwoAtOnce publishes the same disk twice at the same time, on two machines
// and on one. On one machine, the second run waits and uploads nothing.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	for _, machines := range []int{1, 2} {
		t.Run(fmt.Sprintf("machines=%d", machines), func(t *testing.T) {
			fake := start(t, awstest.Knobs{Settle: 100 * time.Millisecond})
			data := content(1, 30)
			states := []string{t.TempDir(), t.TempDir()}
			images := make(chan string, 2)
			for i := range 2 {
				d := write(t, data)
				go func() {
					result, err := publish(t.Context(), t, fake, d, ami.Options{State: states[i%machines]})
					if err != nil {
						images <- err.Error()
						return
					}
					images <- result.Images[0].Image
				}()
			}
			a, b := <-images, <-images
			if a != b || !strings.HasPrefix(a, "ami-") {
				t.Errorf("got %s and %s", a, b)
			}
			if want := 20 * machines; fake.Count("ebs:PutSnapshotBlock") > want {
				t.Errorf("%d blocks were written", fake.Count("ebs:PutSnapshotBlock"))
			}
			if n := len(fake.Snapshots()); n != 1 {
				t.Errorf("%d snapshots are left", n)
			}
			noOrphans(t, fake)
		})
	}
}

// TestAnotherRunUsesTheSnapshot publishes the same disk on a second machine
// when the first one has completed its snapshot and is about to register it.
// The first one then continues, or is interrupted.
func TestAnotherRunUsesTheSnapshot(t *testing.T) {
	t.Parallel()
	data := content(1, 6)
	for _, interrupted := range []bool{false, true} {
		fake, state := start(t, awstest.Knobs{}), t.TempDir()
		ctx, cancel := context.WithCancel(t.Context())
		var second *ami.Image
		fake.SetKnobs(awstest.Knobs{Faults: func(q awstest.Request) awstest.Fault {
			if second == nil && q.Operation == "RegisterImage" && fake.Count("ebs:CompleteSnapshot") == 1 {
				second = &ami.Image{} // not for its own registration
				second = mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
				if interrupted {
					cancel()
				}
			}
			return awstest.None
		}})
		first, err := publish(ctx, t, fake, write(t, data), ami.Options{State: state})
		switch {
		case interrupted && (ami.ClassOf(err) != ami.ClassInterrupted || strings.Contains(err.Error(), "undo")):
			t.Errorf("got %v, want an interrupt and nothing left to undo", err)
		case !interrupted && (err != nil || first.Images[0].Image != second.Image || first.Images[0].Snapshot != second.Snapshot):
			t.Errorf("got %+v, %v, want %+v", first, err, second)
		}
		equal(t, fake, home, second.Snapshot, data)
		if n := len(fake.Snapshots()); n != 1 {
			t.Errorf("%d snapshots are left", n)
		}
		if files, _ := os.ReadDir(state); len(files) > 0 {
			t.Errorf("state left behind: %v", files)
		}
		noOrphans(t, fake)
	}
}

func TestImport(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{Settle: 200 * time.Millisecond})
	fake.CreateBucket(home, "disks")
	data := content(1, 50)
	image := mustPublish(t, fake, write(t, data), ami.Options{Method: ami.MethodImport, Bucket: "disks"}).Images[0]
	equal(t, fake, home, image.Snapshot, data)
	again := mustPublish(t, fake, write(t, data), ami.Options{Method: ami.MethodImport, Bucket: "disks"}).Images[0]
	if !again.Existing || again.Image != image.Image {
		t.Errorf("again: got %+v", again)
	}
	noOrphans(t, fake)
}

// TestDiskChanges writes to the disk while it is uploaded to S3 or EBS.
func TestDiskChanges(t *testing.T) {
	t.Parallel()
	for method, start := range map[ami.Method]func(testing.TB, awstest.Knobs) *awstest.Server{
		ami.MethodImport: start,
		ami.MethodEBS:    awstest.StartTLS, // EBS detects the wrong checksum of a block
	} {
		fake := start(t, awstest.Knobs{})
		fake.CreateBucket(home, "disks")
		path := filepath.Join(t.TempDir(), "machine.raw")
		if err := os.WriteFile(path, content(1, 50), 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, path)
		var change sync.Once
		fake.SetKnobs(awstest.Knobs{Latency: 10 * time.Millisecond, Faults: func(q awstest.Request) awstest.Fault {
			if q.Operation == "UploadPart" || q.Operation == "StartSnapshot" {
				change.Do(func() {
					file, err := os.OpenFile(path, os.O_WRONLY, 0)
					if err == nil {
						_, err = file.WriteAt([]byte("changed"), 49*disk.BlockSize)
					}
					if err != nil || file.Close() != nil {
						t.Error("cannot change the disk:", err)
					}
				})
			}
			return awstest.None
		}})
		state := t.TempDir()
		_, err := publish(t.Context(), t, fake, d, ami.Options{Method: method, Bucket: "disks", State: state})
		if ami.ClassOf(err) != ami.ClassDisk || !strings.Contains(err.Error(), "changed during the upload") {
			t.Errorf("%s: got %v, want that the disk changed", method, err)
		}
		empty(t, fake, state)
	}
}

func TestImportFails(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{ImportFailure: "ClientError: Disk validation failed [Unsupported VMDK]"})
	fake.CreateBucket(home, "disks")
	state := t.TempDir()
	_, err := publish(t.Context(), t, fake, write(t, content(1, 4)), ami.Options{Method: ami.MethodImport, Bucket: "disks", State: state})
	if err == nil || !strings.Contains(err.Error(), "Disk validation failed") {
		t.Errorf("got %v, want AWS's message", err)
	}
	empty(t, fake, state)
}

func TestGC(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	fake.CreateBucket(home, "disks")
	good := mustPublish(t, fake, write(t, content(1, 4)), ami.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	interrupt(fake, cancel, 8)
	if _, err := publish(ctx, t, fake, write(t, content(2, 30)), ami.Options{Name: "machine-2", Keep: true, Workers: 2}); err == nil {
		t.Fatal("the publish was not interrupted")
	}
	fake.SetKnobs(awstest.Knobs{})
	cfg := configure(t, fake)
	// The snapshot is pending, and the run could continue with it.
	if found, err := ami.GC(t.Context(), cfg, ami.GCOptions{OlderThan: -time.Minute}); err != nil || len(found) != 0 {
		t.Errorf("while the snapshot is pending: got %v, %v", found, err)
	}
	fake.Advance(61 * time.Minute) // AWS gives the snapshot up
	for _, step := range []struct {
		o    ami.GCOptions
		want int
	}{
		{ami.GCOptions{OlderThan: time.Hour}, 0},
		{ami.GCOptions{DryRun: true, OlderThan: -time.Minute, Bucket: "disks"}, 1},
		{ami.GCOptions{OlderThan: -time.Minute, Bucket: "disks"}, 1},
		{ami.GCOptions{OlderThan: -time.Minute, Bucket: "disks"}, 0},
	} {
		found, err := ami.GC(t.Context(), cfg, step.o)
		if err != nil || len(found) != step.want {
			t.Errorf("%+v: got %v, %v", step.o, found, err)
		}
	}
	if left := fake.Snapshots(); len(left) != 1 || left[0].ID != good.Images[0].Snapshot {
		t.Errorf("left: %v", left)
	}
}

// TestGCContinues denies the deletion of snapshots. GC must go on with everything
// else, in all regions, and report what it could not delete.
func TestGCContinues(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	fake.CreateBucket(home, "disks")
	cfg, regions := configure(t, fake), []string{home, "eu-west-1"}
	for i, region := range []string{home, home, "eu-west-1"} {
		image := mustPublish(t, fake, write(t, content(uint64(i), 4)), ami.Options{Name: fmt.Sprint("machine-", i), Regions: []string{region}}).Images[0]
		client := ec2.NewFromConfig(cfg, func(o *ec2.Options) { o.Region = region })
		if _, err := client.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &image.Image}); err != nil {
			t.Fatal(err)
		}
	}
	client := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("disks"), Key: aws.String("slipway-publish/x.raw"), Body: strings.NewReader("x"),
	}); err != nil {
		t.Fatal(err)
	}
	o := ami.GCOptions{Regions: regions, Bucket: "disks", OlderThan: -time.Minute}

	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:DeleteSnapshot"}})
	found, err := ami.GC(t.Context(), cfg, o)
	if ami.ClassOf(err) != ami.ClassPermission || strings.Count(err.Error(), "delete snap-") != 3 || !strings.Contains(err.Error(), "eu-west-1: ") {
		t.Errorf("got %v, want an error for each of 3 snapshots", err)
	}
	if len(found) != 1 || found[0].ID != "s3://disks/slipway-publish/x.raw" {
		t.Errorf("removed %v, want the object", found)
	}
	fake.SetKnobs(awstest.Knobs{})
	if found, err := ami.GC(t.Context(), cfg, o); err != nil || len(found) != 3 {
		t.Errorf("got %v, %v, want 3 snapshots", found, err)
	}
	noOrphans(t, fake)
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	d := write(t, content(1, 4))
	o := ami.Options{Name: "machine-1", State: t.TempDir()}
	p, err := ami.New(d, o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Preflight(t.Context(), configure(t, fake)); err != nil {
		t.Error(err)
	}
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:RegisterImage"}})
	if _, err := p.Preflight(t.Context(), configure(t, fake)); ami.ClassOf(err) != ami.ClassPermission {
		t.Errorf("got %v", err)
	}
	if slices.ContainsFunc(fake.Requests(), func(r awstest.Request) bool { return r.Service == "ebs" }) {
		t.Error("the dry run called the EBS direct APIs")
	}
	empty(t, fake, o.State)
}

// BenchmarkPublish is limited by the fake, which computes the digest of each
// block too.
func BenchmarkPublish(b *testing.B) {
	fake := awstest.StartTLS(b, awstest.Knobs{Latency: 20 * time.Millisecond})
	b.SetBytes(384 * 2 / 3 * disk.BlockSize)
	for i := 0; b.Loop(); i++ {
		mustPublish(b, fake, write(b, content(uint64(i), 384)), ami.Options{Name: fmt.Sprint("machine-", i)})
	}
}
