package awstest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// A Fault is a way in which a request fails.
type Fault int

// The faults of a request. It takes effect only with the Lost ones.
const (
	None      Fault = iota
	Throttle        // answered with the service's throttling error
	Internal        // answered with status 500
	Stall           // never answered, until the client or the fake closes the connection
	Reset           // the connection is reset before the body is read
	LostReset       // takes effect, then the connection is reset
	LostStall       // takes effect, and is never answered
	LostError       // takes effect, and is answered with status 500
)

func (f Fault) String() string {
	names := []string{"none", "throttle", "internal", "stall", "reset", "lost and reset", "lost and stalled", "lost and answered with an error"}
	if f < 0 || int(f) >= len(names) {
		return fmt.Sprintf("fault %d", int(f))
	}
	return names[f]
}

// lost reports whether the request takes effect although its answer is lost.
func (f Fault) lost() bool { return f == LostReset || f == LostStall || f == LostError }

// Random returns a schedule for [Knobs.Faults]. Each request fails with the
// given probability, with one of the faults chosen uniformly, and at most limit
// times; a limit of 0 means no limit. The choice depends on the seed, the
// request and its attempt, not on the order of requests, so that concurrent
// runs can be replayed.
func Random(seed uint64, probability float64, limit int, faults ...Fault) func(Request) Fault {
	return func(r Request) Fault {
		if len(faults) == 0 || limit > 0 && r.Attempt > limit {
			return None
		}
		h := fnv.New64a()
		fmt.Fprintf(h, "%s #%d", r.key(), r.Attempt)
		random := rand.New(rand.NewPCG(seed, h.Sum64()))
		if random.Float64() >= probability {
			return None
		}
		return faults[random.IntN(len(faults))]
	}
}
