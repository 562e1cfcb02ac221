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

// A node is a file or a directory of the tree that user data may hold. Its path is relative, clean and has no "..".
type node struct {
	path      string
	directory bool
	content   string
	mode      os.FileMode
}

// errNoTree is what parseTree says of user data that is something else, which is not a mistake.
var errNoTree = errors.New("user data is no JSON object")

// parseTree gives the nodes of the tree in user data, parents before children, in order of their names. The form is LinuxKit's
// (docs/metadata.md there): a JSON object of names, and for each an object with either "content", a file's text, or "entries", a directory's
// names; "perm" is its mode, octal as text, by default 0644 and 0755. Other members are ignored.
//
//	{"ssh": {"entries": {"authorized_keys": {"content": "ssh-ed25519 …", "perm": "0600"}}}}
//
// An object that is not such a tree is an error that names the entry at fault.
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

// newNode gives the node of one entry, and the entries in it if it is a directory.
func newNode(parent, name string, value any) (node, map[string]any, error) {
	n := node{path: path.Join(parent, name), mode: 0o644}
	if err := checkName(name); err != nil {
		return n, nil, err
	}
	entry, _ := value.(map[string]any)
	content, isFile := entry["content"].(string)
	entries, isDirectory := entry["entries"].(map[string]any)
	if isFile == isDirectory {
		return n, nil, errors.New(`want an object with either "content", a text, or "entries", an object`)
	}
	n.content, n.directory = content, isDirectory
	if isDirectory {
		n.mode = 0o755
	}
	if perm := entry["perm"]; perm != nil {
		octal, _ := perm.(string)
		mode, err := strconv.ParseUint(octal, 8, 32)
		if err != nil || mode > 0o777 {
			return n, nil, fmt.Errorf(`"perm" is %v: want an octal mode up to 0777 as text, like "0644"`, perm)
		}
		n.mode = os.FileMode(mode)
	}
	return n, entries, nil
}

// checkName refuses names that are not one element of a path.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..":
		return errors.New("not a file name")
	case strings.ContainsAny(name, "/\x00"):
		return errors.New("a name must not contain / or a zero byte; nest directories with entries")
	case name == partial:
		return errors.New("this name is reserved")
	}
	return nil
}
