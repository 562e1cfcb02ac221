package awstest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"slices"
)

// regions are the regions of the partition aws.
var regions = slices.Sorted(slices.Values(slices.Concat(always, optIn)))

var (
	// always are the regions that are enabled in every account.
	always = []string{
		"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1",
		"eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
	}
	// optIn are the regions that an account must enable first.
	optIn = []string{
		"af-south-1", "ap-east-1", "ap-east-2", "ap-south-2", "ap-southeast-3", "ap-southeast-4", "ap-southeast-5", "ap-southeast-6", "ap-southeast-7",
		"ca-west-1", "eu-central-2", "eu-south-1", "eu-south-2", "il-central-1", "me-central-1", "me-south-1", "me-west-1", "mx-central-1", "sa-west-1",
	}
)

// A region holds the account's resources in one region.
type region struct {
	name      string
	ids       uint64
	snapshots map[string]*snapshot
	images    map[string]*image
	instances map[string]*instance
	bin       recycleBin
	volumes   map[string]*volume
	templates map[string]*launchTemplate
	groups    map[string]*scalingGroup
	fleets    map[string]*spotFleet
	spots     map[string]*spotRequest
	replaces  map[string]*replaceTask
	tasks     map[string]*importTask
	params    map[string]*parameter
	unchecked []*parameter // accepted, but not validated yet, in order
	tokens    map[string]*token

	configurations map[string]launchConfiguration

	describes int // number of Describe requests, for Knobs.Flap
}

// region returns the region of that name. The caller holds s.mu.
func (s *Server) region(name string) *region {
	r := s.regions[name]
	if r == nil {
		r = &region{
			name:      name,
			snapshots: map[string]*snapshot{},
			images:    map[string]*image{},
			instances: map[string]*instance{},
			bin:       recycleBin{map[string]binned[*snapshot]{}, map[string]binned[*image]{}},
			volumes:   map[string]*volume{},
			templates: map[string]*launchTemplate{},
			groups:    map[string]*scalingGroup{},
			fleets:    map[string]*spotFleet{},
			spots:     map[string]*spotRequest{},
			replaces:  map[string]*replaceTask{},
			tasks:     map[string]*importTask{},
			params:    map[string]*parameter{},
			tokens:    map[string]*token{},

			configurations: map[string]launchConfiguration{},
		}
		s.regions[name] = r
	}
	return r
}

// id returns a new ID. IDs are the same in each run, but clients cannot guess
// them.
func (r *region) id(prefix string) string {
	r.ids++
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", r.name, prefix, r.ids)
	return prefix + "-0" + hex.EncodeToString(binary.BigEndian.AppendUint64(nil, h.Sum64()))
}

// A token is the request that came with a client token, and its result.
type token struct {
	parameters string // in canonical form
	id         string // of the created resource
}

// once returns the ID that an earlier request with the same client token
// created, and reports whether that request had different parameters.
func (r *region) once(operation, name, parameters string) (id string, mismatch bool) {
	if t := r.tokens[operation+" "+name]; name != "" && t != nil {
		return t.id, t.parameters != parameters
	}
	return "", false
}

// remember records the ID that a request with a client token created.
func (r *region) remember(operation, name, parameters, id string) {
	if name != "" {
		r.tokens[operation+" "+name] = &token{parameters: parameters, id: id}
	}
}
