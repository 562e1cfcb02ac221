package ami

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"

	"github.com/slipway-build/slipway/publisher/disk"
)

// fakeBlocks returns blocks with made-up digests.
func fakeBlocks(indexes ...int32) []disk.Block {
	var list []disk.Block
	for _, i := range indexes {
		list = append(list, disk.Block{Index: i, Sum: disk.Sum{byte(i), byte(i >> 8), 1}})
	}
	return list
}

func TestManifest(t *testing.T) {
	many := make([]int32, 700)
	for i := range many {
		many[i] = int32(i + i/10)
	}
	for _, indexes := range [][]int32{{0}, {5, 6, 7, 100, 200000}, many} {
		d := &disk.Disk{Blocks: fakeBlocks(indexes...)}
		tags := manifestTags(d, 45)
		got, err := manifestOf(append([]types.Tag{{}}, tags...))
		if err != nil {
			t.Fatal(err)
		}
		want := map[int32]short{}
		for _, b := range d.Blocks {
			want[b.Index] = shorten(b.Sum)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d blocks: got %d others", len(want), len(got))
		}
		for _, tag := range tags {
			if len(*tag.Value) > 256 || len(*tag.Key) > 128 {
				t.Errorf("a tag that AWS refuses: %q with %d characters", *tag.Key, len(*tag.Value))
			}
		}
		if cut, err := manifestOf(tags[:len(tags)-1]); err == nil && reflect.DeepEqual(cut, want) {
			t.Error("a tag that is missing was not missed")
		}
	}
	if tags := manifestTags(&disk.Disk{Blocks: fakeBlocks(many...)}, 40); tags != nil {
		t.Errorf("%d tags instead of 40 at most", len(tags))
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(encodeManifest(fakeBlocks(1, 2, 9)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeManifest(data)
		if err == nil && len(got)*shortSum > len(data) {
			t.Errorf("%d blocks of %d bytes", len(got), len(data))
		}
	})
}

func TestDifference(t *testing.T) {
	d := &disk.Disk{Size: 5 * disk.BlockSize, Blocks: fakeBlocks(0, 2, 3)}
	same, other := shorten(d.Blocks[0].Sum), short{9}
	for what, test := range map[string]struct {
		from   *parent
		random bool
		want   []int32
	}{
		"no parent":           {nil, false, []int32{0, 2, 3}},
		"no parent, random":   {nil, true, []int32{0, 1, 2, 3, 4}},
		"parent":              {&parent{blocks: map[int32]short{0: same, 1: other, 2: other, 4: zeroSum, 7: other}}, false, []int32{1, 2, 3, 7}},
		"parent, random":      {&parent{blocks: map[int32]short{0: same, 1: zeroSum, 2: other}}, true, []int32{2, 3, 4}},
		"parent with nothing": {&parent{blocks: map[int32]short{}}, false, []int32{0, 2, 3}},
	} {
		var got []int32
		for _, b := range test.from.difference(d, test.random, nil) {
			got = append(got, b.Index)
			if b.Sum != blockOf(d, b.Index).Sum {
				t.Errorf("%s: block %d has a wrong digest", what, b.Index)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", what, got, test.want)
		}
	}
}

func TestClasses(t *testing.T) {
	api := func(code string) error { return &smithy.GenericAPIError{Code: code, Message: "words"} }
	for _, test := range []struct {
		err       error
		class     Class
		transient bool
	}{
		{api("UnauthorizedOperation"), ClassPermission, false},
		{&ebstypes.AccessDeniedException{}, ClassPermission, false},
		{api("ExpiredToken"), ClassCredentials, false},
		{api("AuthFailure"), ClassCredentials, false},
		{api("InvalidAMIName.Duplicate"), ClassNameTaken, false},
		{&ebstypes.ServiceQuotaExceededException{}, ClassQuota, false},
		{&ebstypes.RequestThrottledException{}, ClassOther, true},
		{&ebstypes.InternalServerException{}, ClassOther, true},
		{&ebstypes.ValidationException{Reason: "CONFLICTING_BLOCK_UPDATE"}, ClassOther, true},
		{&ebstypes.ValidationException{Reason: "INVALID_PARAMETER_VALUE"}, ClassOther, false},
		{api("RequestLimitExceeded"), ClassOther, true},
		{&net.DNSError{IsNotFound: true, Name: "ec2.us-esat-1.amazonaws.com"}, ClassRegionUnavailable, false},
		{fmt.Errorf("request: %w", context.DeadlineExceeded), ClassOther, true},
		{context.Canceled, ClassInterrupted, false},
		{errors.New("else"), ClassOther, false},
	} {
		if got := ClassOf(test.err); got != test.class {
			t.Errorf("%v: class %d, want %d", test.err, got, test.class)
		}
		if got := isTransient(test.err); got != test.transient {
			t.Errorf("%v: transient %v, want %v", test.err, got, test.transient)
		}
		if line := describe("do it", test.err).Error(); strings.Contains(line, "\n") {
			t.Errorf("more than a line: %q", line)
		}
	}
}

func TestWindow(t *testing.T) {
	w := newWindow(20)
	for range 16 {
		if err := w.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := w.acquire(ctx); err == nil {
		t.Fatal("the window is larger than at first it may be")
	}
	for range 16 {
		w.release(true)
	}
	if w.limit != 20 {
		t.Errorf("grew to %d, want 20", w.limit)
	}
	w.shrink()
	w.shrink() // the same crowd
	if w.limit != 10 {
		t.Errorf("shrank to %d, want 10", w.limit)
	}
}

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	never := func() { t.Error("locked") }
	j, err := openJournal(t.Context(), dir, "x", never)
	if err != nil {
		t.Fatal(err)
	}
	run := j.Run
	seven := int32(7)
	for _, change := range []record{{Snapshot: "snap-1", Partial: true}, {Block: &seven}, {Image: "ami-1"}} {
		if err := j.note(change); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan struct{})
	go func(first *journal) {
		<-waiting
		first.close(false)
	}(j)
	// A second one waits for the first.
	j, err = openJournal(t.Context(), dir, "x", func() { close(waiting) })
	if err != nil {
		t.Fatal(err)
	}
	j.close(false)
	// A kill may cut the last line.
	path := filepath.Join(dir, "x.jsonl")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"Block":`); err != nil {
		t.Fatal(err)
	}
	file.Close()
	j, err = openJournal(t.Context(), dir, "x", never)
	if err != nil {
		t.Fatal(err)
	}
	if j.Run != run || j.Snapshot != "snap-1" || !j.Partial || j.Image != "ami-1" || !j.isWritten(7) || j.isWritten(8) {
		t.Errorf("got %+v %v", j.record, j.written)
	}
	if err := j.restart(); err != nil || j.Run == run || j.Snapshot != "" || j.isWritten(7) {
		t.Errorf("after a restart: %+v, %v", j.record, err)
	}
	if err := j.close(true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the journal is still there: %v", err)
	}
}

// TestImage compares the request with what a good image has.
func TestImage(t *testing.T) {
	size, iops := int32(8), int32(6000)
	device, other := "/dev/xvda", "/dev/sdb"
	o := Options{Name: "machine", VolumeSize: 1, VolumeType: types.VolumeTypeGp3, Architecture: disk.ARM64}
	got := o.register("snap-1")
	root := got.BlockDeviceMappings[0]
	if got.Architecture != "arm64" || *got.VirtualizationType != "hvm" || !*got.EnaSupport || got.ImdsSupport != "v2.0" || *got.RootDeviceName != device ||
		*root.DeviceName != device || *root.Ebs.SnapshotId != "snap-1" || root.Ebs.VolumeType != "gp3" || !*root.Ebs.DeleteOnTermination || root.Ebs.Encrypted != nil {
		t.Errorf("got %+v, %+v", got, root.Ebs)
	}
	no := false
	o.Register = ec2.RegisterImageInput{EnaSupport: &no, BlockDeviceMappings: []types.BlockDeviceMapping{
		{DeviceName: &other, Ebs: &types.EbsBlockDevice{VolumeSize: &size}},
		{DeviceName: &device, Ebs: &types.EbsBlockDevice{VolumeSize: &size, Iops: &iops}},
	}}
	got = o.register("snap-1")
	root = got.BlockDeviceMappings[0]
	if *got.EnaSupport || len(got.BlockDeviceMappings) != 2 || *root.Ebs.Iops != iops || *root.Ebs.VolumeSize != size || *root.Ebs.SnapshotId != "snap-1" {
		t.Errorf("got %+v, %+v", got, root.Ebs)
	}
	if o.Register.BlockDeviceMappings[1].Ebs.SnapshotId != nil {
		t.Error("the options were changed")
	}
}
