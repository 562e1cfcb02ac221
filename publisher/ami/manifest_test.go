package ami

import (
	"reflect"
	"testing"

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
	for _, test := range []struct {
		indexes []int32
		most    int
		group   int32
	}{{[]int32{0}, 45, 1}, {[]int32{5, 6, 7, 100, 200000}, 45, 1}, {many, 45, 1}, {many, 40, 2}, {many, 3, 32}, {many, 1, 64}} {
		d := &disk.Disk{Blocks: fakeBlocks(test.indexes...)}
		tags := manifestTags(d, test.most)
		if len(tags) > test.most {
			t.Errorf("%d tags, want %d at most", len(tags), test.most)
		}
		got, err := manifestOf(append([]types.Tag{{}}, tags...))
		if err != nil {
			t.Fatal(err)
		}
		want := &manifest{test.group, map[int32]short{}}
		for _, g := range groupsOf(d.Blocks, test.group) {
			want.groups[g.Index] = shorten(g.Sum)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d groups: got %d of %d blocks", len(want.groups), len(got.groups), got.group)
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
	if tags := manifestTags(&disk.Disk{Blocks: fakeBlocks(many...)}, 0); tags != nil {
		t.Errorf("got %d tags, want none", len(tags))
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(encodeManifest(fakeBlocks(1, 2, 9), 1))
	f.Add(encodeManifest(fakeBlocks(1, 2, 9), 4))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := decodeManifest(data)
		if err == nil && len(got.groups)*shortSum > len(data) {
			t.Errorf("got %d groups from %d bytes", len(got.groups), len(data))
		}
	})
}
