package awstest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
)

// regions are those of the partition aws, all enabled: DescribeRegions lists them and requests may be signed for them.
var regions = slices.Sorted(slices.Values(slices.Concat(always, optIn)))

var (
	// always are the regions that every account has.
	always = []string{
		"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1",
		"eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
	}
	// optIn are those that an account must ask for, as this one has.
	optIn = []string{
		"af-south-1", "ap-east-1", "ap-east-2", "ap-south-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
		"ca-west-1", "eu-central-2", "eu-south-1", "eu-south-2", "il-central-1", "me-central-1", "me-south-1", "me-west-1", "mx-central-1", "sa-west-1",
	}
)

// region is what one region of the account holds.
type region struct {
	name      string
	ids       uint64
	snapshots map[string]*snapshot
	images    map[string]*image
	tasks     map[string]*importTask
	params    map[string]*parameter
	tokens    map[string]*token
	describes int // counts Describe requests, for flapping
}

// region returns a region by name. The caller holds s.mu.
func (s *Server) region(name string) *region {
	r := s.regions[name]
	if r == nil {
		r = &region{
			name:      name,
			snapshots: map[string]*snapshot{},
			images:    map[string]*image{},
			tasks:     map[string]*importTask{},
			params:    map[string]*parameter{},
			tokens:    map[string]*token{},
		}
		s.regions[name] = r
	}
	return r
}

// id returns a new id: the same for the n-th one of a region in each run, but no plain count that a client could guess.
func (r *region) id(prefix string) string {
	r.ids++
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", r.name, prefix, r.ids)
	return prefix + "-0" + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, h.Sum64()))
}

// token remembers what a client token stands for.
type token struct {
	parameters string // a canonical text of the request
	id         string // what it made
}

// once finds what an earlier request with the same client token made. A token that comes with other parameters is the
// client's mistake.
func (r *region) once(operation, name, parameters string) (id string, mismatch bool) {
	if t := r.tokens[operation+" "+name]; name != "" && t != nil {
		return t.id, t.parameters != parameters
	}
	return "", false
}

// remember binds a client token to what it made.
func (r *region) remember(operation, name, parameters, id string) {
	if name != "" {
		r.tokens[operation+" "+name] = &token{parameters: parameters, id: id}
	}
}
