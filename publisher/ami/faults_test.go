package ami_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

var (
	schedules = flag.Int("schedules", 16, "number of random fault schedules to run")
	firstSeed = flag.Uint64("seed", 1, "seed of the first fault schedule")
)

// TestFaults publishes under random faults with both methods. Each run must end
// with a snapshot that equals the disk, or with an error and nothing left
// behind. To replay one: -run TestFaults -schedules 1 -seed N.
func TestFaults(t *testing.T) {
	var done, failed atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		slots := make(chan struct{}, 12) // schedules mostly wait
		for i := range *schedules {
			seed := *firstSeed + uint64(i)
			slots <- struct{}{}
			finished := make(chan struct{})
			go func() { <-finished; <-slots }()
			go func() {
				defer close(finished)
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					if schedule(t, seed) {
						done.Add(1)
					} else {
						failed.Add(1)
					}
				})
			}()
		}
		for range cap(slots) {
			slots <- struct{}{}
		}
	})
	t.Logf("%d schedules ended in success, %d in a clean failure", done.Load(), failed.Load())
}

func schedule(t *testing.T, seed uint64) (success bool) {
	random := rand.New(rand.NewPCG(seed, 0))
	pick := func(n int) bool { return random.IntN(n) == 0 }
	faults := []awstest.Fault{awstest.Throttle, awstest.Internal, awstest.Reset, awstest.LostReset, awstest.LostError}
	if pick(3) {
		faults = append(faults, awstest.Stall, awstest.LostStall)
	}
	plan := awstest.Random(seed, []float64{0.02, 0.1, 0.3}[random.IntN(3)], 1+random.IntN(3), faults...)
	knobs := awstest.Knobs{
		Grace:  time.Duration(random.IntN(300)) * time.Millisecond,
		Settle: time.Duration(random.IntN(300)) * time.Millisecond,
		Flap:   time.Duration(random.IntN(1000)) * time.Millisecond,
		Faults: plan, EncryptByDefault: pick(4),
	}
	if pick(8) {
		knobs.PutRate = 50
	}
	if pick(6) {
		denied := []string{"ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot", "ec2:ImportSnapshot", "ec2:CopyImage", "ec2:ModifyImageAttribute", "ssm:PutParameter", "ec2:EnableImageDeprecation"}
		knobs.Denied = denied[random.IntN(len(denied)):][:1]
	}
	if pick(8) {
		knobs.ImportFailure = "ClientError: seeded failure"
	}
	o := ami.Options{Timeout: time.Second, State: t.TempDir(), Workers: 1 + random.IntN(16)}
	if pick(3) {
		o.Method, o.Bucket = ami.MethodImport, "disks"
	}
	if pick(3) {
		o.Regions, o.Copy = []string{home, "eu-west-1"}, o.Method == ami.MethodImport || pick(2)
	}
	if pick(3) {
		o.Share, o.SSMParameter, o.DeprecateAfter = []string{"111122223333"}, "/machine", 24*time.Hour
	}
	if o.Method != ami.MethodImport && pick(4) {
		o.Parent = "auto"
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if pick(5) {
		var requests atomic.Int64
		limit := int64(random.IntN(60))
		knobs.Faults = func(r awstest.Request) awstest.Fault {
			if requests.Add(1) == limit {
				cancel()
			}
			return plan(r)
		}
	}

	fake := awstest.StartTLS(t, knobs)
	fake.CreateBucket(home, "disks")
	t.Cleanup(func() {
		if t.Failed() {
			for _, r := range fake.Requests() {
				t.Log(r)
			}
		}
	})
	if o.Parent == "auto" {
		faulty := fake.Knobs()
		fake.SetKnobs(awstest.Knobs{EncryptByDefault: knobs.EncryptByDefault})
		mustPublish(t, fake, write(t, content(seed+1, 12)), ami.Options{Name: "machine-0", Regions: o.Regions})
		fake.SetKnobs(faulty)
	}
	before := len(fake.Snapshots())
	data := content(seed, 4+random.IntN(28))
	result, err := publish(ctx, t, fake, write(t, data), o)
	noViolations(t, fake)
	noOrphans(t, fake)
	if err != nil {
		t.Log(err)
		if left := fake.Snapshots(); len(left) != before {
			t.Errorf("after %v: left behind: %v", err, left)
		}
		return false
	}
	fake.SetKnobs(awstest.Knobs{})
	for _, image := range result.Images {
		equal(t, fake, image.Region, image.Snapshot, data)
	}
	if want := before + len(result.Images); len(fake.Snapshots()) != want {
		t.Errorf("%d snapshots instead of %d", len(fake.Snapshots()), want)
	}
	return true
}
