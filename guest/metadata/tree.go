package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A node is a file or directory of the tree in user data. Its path is relative,
// clean and has no "..".
type node struct {
	path      string
	directory bool
	content   string
	mode      os.FileMode
}

// errNoTree is the error of parseTree for user data that is not a tree, which
// is valid.
var errNoTree = errors.New("user data is not a JSON object")

// parseTree returns the nodes of the tree in user data, parents before children,
// sorted by name. The format is that of LinuxKit (docs/metadata.md there): a JSON
// object with a member per name. Each value is an object with either "content",
// the text of a file, or "entries", the members of a directory. "perm" is the
// mode as an octal string (default: 0644 for files, 0755 for directories). Other
// members are ignored.
//
//	{"ssh": {"entries": {"authorized_keys": {"content": "ssh-ed25519 …", "perm": "0600"}}}}
//
// The error for an invalid tree names the invalid entry.
func parseTree(userData []byte) ([]node, error) {
	var tree any
	if err := json.Unmarshal(userData, &tree); err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoTree, err)
	}
	names, ok := tree.(map[string]any)
	if !ok {
		return nil, errNoTree
	}
	return appendNodes(nil, "", names)
}

func appendNodes(nodes []node, parent string, names map[string]any) ([]node, error) {
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n, entries, err := newNode(parent, name, names[name])
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", parent+"/"+name, err)
		}
		if nodes, err = appendNodes(append(nodes, n), n.path, entries); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// newNode returns the node of one entry, and its entries if it is a directory.
func newNode(parent, name string, value any) (node, map[string]any, error) {
	n := node{path: path.Join(parent, name), mode: 0o644}
	if err := checkName(name); err != nil {
		return n, nil, err
	}
	entry, _ := value.(map[string]any)
	content, isFile := entry["content"].(string)
	entries, isDirectory := entry["entries"].(map[string]any)
	if isFile == isDirectory {
		return n, nil, errors.New(`must be an object with either "content", a string, or "entries", an object`)
	}
	n.content, n.directory = content, isDirectory
	if isDirectory {
		n.mode = 0o755
	}
	if perm := entry["perm"]; perm != nil {
		octal, _ := perm.(string)
		mode, err := strconv.ParseUint(octal, 8, 32)
		if err != nil || mode > 0o777 {
			return n, nil, fmt.Errorf(`"perm" is %v: must be an octal mode up to 0777 as a string, for example "0644"`, perm)
		}
		n.mode = os.FileMode(mode)
	}
	return n, entries, nil
}

// checkName returns an error for names that are not one element of a path.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return errors.New("not a file name")
	case strings.ContainsAny(name, "/\x00"):
		return errors.New("the name contains / or a zero byte: use entries for directories")
	case name == partial:
		return errors.New("the name is reserved")
	}
	return nil
}
