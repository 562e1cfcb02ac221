package awstest

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
)

// Fault is a way in which a request fails.
type Fault int

// What can happen to a request. All but the Lost ones leave no trace in the account.
const (
	None      Fault = iota
	Throttle        // answered by the service's throttling error
	Internal        // answered by 500
	Stall           // never answered; ends with the client's patience or the fake
	Reset           // the connection is reset before the body is read
	LostReset       // takes effect, then the connection is reset
	LostStall       // takes effect, and is never answered
	LostError       // takes effect, and is answered by 500
)

func (f Fault) String() string {
	names := []string{"none", "throttle", "internal", "stall", "reset", "lost and reset", "lost and stalled", "lost by an error"}
	if f < 0 || int(f) >= len(names) {
		return fmt.Sprintf("fault %d", int(f))
	}
	return names[f]
}

// lost says that the request takes effect.
func (f Fault) lost() bool { return f == LostReset || f == LostStall || f == LostError }

// Random returns a schedule for [Knobs.Faults]: each request fails with the given probability by one of the faults, all
// alike likely. It is decided by seed, the request and its attempt, not by the order in which requests come, so a run can be
// replayed however its workers race. A request fails at most limit times; 0 is no limit.
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
