package ami

import (
	"slices"
	"testing"

	"github.com/slipway-build/slipway/publisher/disk"
)

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
				t.Errorf("%s: the digest of block %d is wrong", what, b.Index)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", what, got, test.want)
		}
	}
}
