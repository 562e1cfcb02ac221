package contract

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"unicode/utf8"
)

// The archives of an initramfs have no place for extended attributes. The
// exporter puts them into the file XattrsFile; the init sets them, then removes
// the directory XattrsDir.
const (
	XattrsDir  = ".xattrs"
	XattrsFile = XattrsDir + "/list.json"
)

// Xattrs are extended attributes: path to name to value.
type Xattrs map[string]map[string][]byte

// Marshal returns the content of XattrsFile: a JSON object, with values in
// base64 and sorted keys. It is an error if JSON cannot hold a path or name
// because it is not valid UTF-8.
func (x Xattrs) Marshal() ([]byte, error) {
	if err := x.check(); err != nil {
		return nil, err
	}
	return json.Marshal(map[string]map[string][]byte(x))
}

// UnmarshalXattrs parses what Marshal returned. It is an error if a path leads
// out of the root.
func UnmarshalXattrs(data []byte) (Xattrs, error) {
	var x Xattrs
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, fmt.Errorf("list of extended attributes: %w", err)
	}
	return x, x.check()
}

func (x Xattrs) check() error {
	for path, attributes := range x {
		if !fs.ValidPath(path) {
			return fmt.Errorf("extended attributes of %q: not a valid UTF-8 path below the root", path)
		}
		for name := range attributes {
			if !utf8.ValidString(name) {
				return fmt.Errorf("extended attribute %q of %s: the name is not valid UTF-8", name, path)
			}
		}
	}
	return nil
}
