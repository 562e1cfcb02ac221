package disk

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/exporter/diskmap"
)

// TestMap opens a disk of eight and a half blocks, with data at the start of block 0
// and across the border of blocks 4 and 5.
func TestMap(t *testing.T) {
	const size = 8*BlockSize + BlockSize/2
	data := make([]byte, size)
	data[10] = 1
	copy(data[5*BlockSize-2:], "over")
	good := []diskmap.Extent{
		{Offset: 0, Length: 512, Type: diskmap.Data},
		{Offset: 512, Length: 2*BlockSize - 512, Type: diskmap.Zero},
		{Offset: 2 * BlockSize, Length: BlockSize, Type: diskmap.Free}, // 2
		{Offset: 3 * BlockSize, Length: BlockSize, Type: diskmap.Free}, // 3, which follows 2
		{Offset: 4 * BlockSize, Length: BlockSize - 512, Type: diskmap.Free},
		{Offset: 5*BlockSize - 512, Length: 1024, Type: diskmap.Data},
		{Offset: 5*BlockSize + 512, Length: 2*BlockSize - 1024, Type: diskmap.Free}, // 6 without its last 512 bytes
		{Offset: 7*BlockSize - 512, Length: 512, Type: diskmap.Zero},
		{Offset: 7 * BlockSize, Length: BlockSize + BlockSize/2, Type: diskmap.Free}, // 7, and the half one
	}
	encode := func(m diskmap.Map) string {
		var b bytes.Buffer
		if err := m.Write(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	whole := encode(diskmap.Map{Version: diskmap.Version, Size: size, Extents: good})
	for what, test := range map[string]struct {
		text, warning string
		free          []int32
	}{
		"good":           {whole, "", []int32{2, 3, 7}},
		"free, but data": {strings.Replace(whole, `1024, "type": "data"`, `1024, "type": "free"`, 1), "it is the map of another disk", nil},
		"zero, but data": {strings.Replace(whole, `512, "type": "data"`, `512, "type": "zero"`, 1), "it is the map of another disk", nil},
		"longer disk":    {encode(diskmap.Map{Version: diskmap.Version, Size: size + 512, Extents: append(good[:len(good):len(good)], diskmap.Extent{Offset: size, Length: 512, Type: diskmap.Free})}), "this one has 4456448", nil},
		"no map":         {"x", "invalid character", nil},
	} {
		path := save(t, data)
		if err := os.WriteFile(path+".map", []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		d := open(t, path)
		var free []int32
		for i := range d.Count() {
			if d.Free(i) {
				free = append(free, i)
			}
		}
		if !slices.Equal(free, test.free) {
			t.Errorf("%s: blocks %v are free, want %v", what, free, test.free)
		}
		if got := strings.Join(d.warnings, "\n"); (test.warning == "") != (got == "") || !strings.Contains(got, test.warning) {
			t.Errorf("%s: warnings %q, want %q", what, got, test.warning)
		}
		if len(d.Blocks) != 3 {
			t.Errorf("%s: %d blocks of data, want 3", what, len(d.Blocks))
		}
	}
}
