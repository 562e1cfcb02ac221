package disk

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestDigestsOfMap checks when Open takes the digests of a map, and that wrong
// ones are noticed before they matter.
func TestDigestsOfMap(t *testing.T) {
	const count = 40
	data := make([]byte, count*BlockSize)
	for i := range count {
		if i%4 != 3 {
			data[i*BlockSize+i] = byte(i + 1)
		}
	}
	for what, test := range map[string]struct {
		change  func(m *diskmap.Map)
		age     time.Duration // by which the map is older than the disk
		claimed bool
		wrong   bool // Verify fails
	}{
		"right":                    {func(*diskmap.Map) {}, 0, true, false},
		"older map":                {func(*diskmap.Map) {}, time.Second, false, false},
		"no digests":               {func(m *diskmap.Map) { m.Digests = nil }, 0, false, false},
		"a wrong first digest":     {func(m *diskmap.Map) { m.Digests[0].SHA256 = m.Digests[1].SHA256 }, 0, false, false},
		"a wrong digest":           {func(m *diskmap.Map) { m.Digests[1].SHA256 = m.Digests[2].SHA256 }, 0, true, true},
		"data without a digest":    {func(m *diskmap.Map) { m.Digests = slices.Delete(m.Digests, 3, 4) }, 0, false, false},
		"a digest of a zero block": {func(m *diskmap.Map) { m.Digests[2].Block = 3 }, 0, false, false},
		"data that is free": {func(m *diskmap.Map) {
			m.Extents = []diskmap.Extent{{Length: BlockSize, Type: diskmap.Data}, {Offset: BlockSize, Length: (count - 1) * BlockSize, Type: diskmap.Free}}
		}, 0, false, false},
	} {
		path := save(t, data)
		want := open(t, path).Blocks
		m := diskmap.Map{Version: 1, Size: int64(len(data)), Extents: []diskmap.Extent{{Length: int64(len(data)), Type: diskmap.Data}}}
		for _, b := range want {
			m.Digests = append(m.Digests, diskmap.Digest{Block: b.Index, SHA256: hex.EncodeToString(b.Sum[:])})
		}
		test.change(&m)
		var text bytes.Buffer
		if err := m.Write(&text); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".map", text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if err := errors.Join(os.Chtimes(path, now, now), os.Chtimes(path+".map", now, now.Add(-test.age))); err != nil {
			t.Fatal(err)
		}
		d := open(t, path)
		if got := d.claimed.Load(); got != test.claimed {
			t.Errorf("%s: the digests are taken: %t, want %t", what, got, test.claimed)
		}
		if !test.wrong && !slices.Equal(d.Blocks, want) {
			t.Errorf("%s: the digests differ", what)
		}
		if err := d.Verify(t.Context()); test.wrong != (err != nil && strings.Contains(err.Error(), "does not match its map: remove "+path+".map")) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}
