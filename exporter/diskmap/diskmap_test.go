package diskmap

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example = `{
  "version": 1,
  "size": 4096,
  "extents": [
    {"offset": 0, "length": 512, "type": "data"},
    {"offset": 512, "length": 512, "type": "zero"},
    {"offset": 1024, "length": 3072, "type": "free"}
  ]
}
`

func TestReadAndWrite(t *testing.T) {
	m, err := Read(strings.NewReader(example))
	if err != nil {
		t.Fatal(err)
	}
	want := Map{Version: 1, Size: 4096, Extents: []Extent{{0, 512, Data}, {512, 512, Zero}, {1024, 3072, Free}}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("map (-want +got):\n%s", diff)
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil || b.String() != example {
		t.Errorf("written: %v\n%s", err, b.String())
	}
}

func TestDigests(t *testing.T) {
	text := strings.Replace(example, "\n  ]\n", "\n  ],\n  \"digests\": [\n    {\"block\": 0, \"sha256\": \""+strings.Repeat("0f", 32)+"\"}\n  ]\n", 1)
	m, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil || b.String() != text {
		t.Errorf("written: %v\n%s", err, b.String())
	}
	for want, change := range map[string][2]string{
		"invalid digest":        {"0f0f", "0F0f"},
		`invalid digest "0f"`:   {strings.Repeat("0f", 32), "0f"},
		"after the end":         {`"block": 0`, `"block": 1`},
		"the digest of block 0": {`"digests": [`, `"digests": [{"block": 0, "sha256": "` + strings.Repeat("00", 32) + `"},`},
		"the digest of block -": {`"block": 0`, `"block": -1`},
	} {
		if _, err := Read(strings.NewReader(strings.Replace(text, change[0], change[1], 1))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestReserved(t *testing.T) {
	text := strings.Replace(example, "\n  ]\n", "\n  ],\n  \"reserved\": [\n    {\"kind\": \"user-data\", \"offset\": 0, \"length\": 512}\n  ]\n", 1)
	m, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := m.Write(&b); err != nil || b.String() != text {
		t.Errorf("written: %v\n%s", err, b.String())
	}
	if _, err := Read(strings.NewReader(strings.Replace(text, `"offset": 0, "length": 512}`, `"offset": 3585, "length": 512}`, 1))); err == nil || !strings.Contains(err.Error(), "reserved area") {
		t.Errorf("after the end: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for want, change := range map[string][2]string{
		"unexpected EOF":                      {example, ""},
		"unknown version 2":                   {`"version": 1`, `"version": 2`},
		"extent 1 starts at 511":              {`"offset": 512`, `"offset": 511`},
		"extent 0 at 0 has 0 bytes":           {`"length": 512, "type": "data"`, `"length": 0, "type": "data"`},
		"extent 0 at 0 has -1 bytes":          {`"length": 512, "type": "data"`, `"length": -1, "type": "data"`},
		"extent 2 at 1024 has 4000 bytes":     {`"length": 3072`, `"length": 4000`},
		"the extents end at 4096":             {`"size": 4096`, `"size": 4097`},
		`the unknown type "hole"`:             {`"free"`, `"hole"`},
		`unknown field "sizes"`:               {`"size"`, `"sizes"`},
		"there is more after the JSON object": {"\n}\n", "\n}\n{}"},
		"cannot unmarshal string into Go st":  {"4096", `"4096"`},
	} {
		text := strings.Replace(example, change[0], change[1], 1)
		if change[1] == "" {
			text = example[:100]
		}
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// A map that Read accepts covers its disk, and can be written and read again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte(`{"version":1,"size":9223372036854775807,"extents":[{"offset":0,"length":9223372036854775807,"type":"free"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Read(bytes.NewReader(data))
		if err != nil {
			return
		}
		var covered int64
		for _, e := range m.Extents {
			covered += e.Length
		}
		if covered != m.Size {
			t.Errorf("%d of %d bytes are covered", covered, m.Size)
		}
		var b bytes.Buffer
		if err := m.Write(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Read(&b)
		if diff := cmp.Diff(m, again); err != nil || diff != "" {
			t.Errorf("read again: %v\n%s", err, diff)
		}
	})
}
