package segment

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"path"
	"slices"

	"github.com/slipway-build/slipway/exporter/tree"
)

// XattrsDir is where a cpio segment keeps the extended attributes of its
// files, which newc has no place for: a JSON object, path to name to value in
// base64, in a file named by its digest. Slipway's init sets them and removes
// the directory before the root becomes read-only.
const XattrsDir = ".xattrs"

// withXattrs adds the list of extended attributes, if there are any.
func withXattrs(entries []tree.Entry) ([]tree.Entry, error) {
	files := map[string]map[string][]byte{}
	for _, e := range entries {
		for name, value := range e.Xattrs {
			if files[e.Path] == nil {
				files[e.Path] = map[string][]byte{}
			}
			files[e.Path][name] = []byte(value)
		}
	}
	if len(files) == 0 {
		return entries, nil
	}
	list, err := json.Marshal(files) // sorts its keys
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(list)
	dir := tree.NewDir(XattrsDir)
	dir.Mode = 0o700
	all := append(slices.Clone(entries), dir, tree.NewFile(path.Join(XattrsDir, hex.EncodeToString(digest[:])), 0o600, string(list)))
	tree.Sort(all)
	return all, nil
}
