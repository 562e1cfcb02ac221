package ami

import (
	"maps"
	"os"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

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
			t.Errorf("%d blocks: got %d different ones", len(want), len(got))
		}
		for _, tag := range tags {
			if len(*tag.Value) > 256 || len(*tag.Key) > 128 {
				t.Errorf("AWS would reject the tag %q with %d characters", *tag.Key, len(*tag.Value))
			}
		}
		if cut, err := manifestOf(tags[:len(tags)-1]); err == nil && reflect.DeepEqual(cut, want) {
			t.Error("the missing tag was not noticed")
		}
	}
	if tags := manifestTags(&disk.Disk{Blocks: fakeBlocks(many...)}, 40); tags != nil {
		t.Errorf("got %d tags, want none: the manifest needs more than 40", len(tags))
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(encodeManifest(fakeBlocks(1, 2, 9)))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeManifest(data)
		if err == nil && len(got)*shortSum > len(data) {
			t.Errorf("got %d blocks from %d bytes", len(got), len(data))
		}
	})
}

// TestManifestFile checks that the file is found again and that old ones go.
func TestManifestFile(t *testing.T) {
	o := Options{State: t.TempDir()}
	d := &disk.Disk{Size: 3 * disk.BlockSize, Blocks: []disk.Block{{Index: 0, Sum: disk.Sum{1}}, {Index: 2, Sum: disk.Sum{2}}}}
	for _, id := range []string{"snap-1", "snap-2"} {
		if err := o.saveManifest(id, d); err != nil {
			t.Fatal(err)
		}
	}
	got, err := o.loadManifest("snap-1")
	if want := (map[int32]short{0: {1}, 2: {2}}); err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	old := time.Now().Add(-2 * manifestAge)
	if err := os.Chtimes(o.manifestFile("snap-1"), old, old); err != nil {
		t.Fatal(err)
	}
	if err := o.saveManifest("snap-2", d); err != nil {
		t.Fatal(err)
	}
	if got, err := o.loadManifest("snap-1"); got != nil || err != nil {
		t.Errorf("an old manifest is left: %v, %v", got, err)
	}
}
