package ami_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

var (
	schedules = flag.Int("schedules", 16, "number of random fault schedules to run")
	firstSeed = flag.Uint64("seed", 1, "seed of the first fault schedule")
)

// object matches the key of an object, which has a random name.
var object = regexp.MustCompile(`[0-9a-f]{32}\.raw`)

// TestFaults publishes, verifies and deploys under random faults with both
// methods. Each publish must end with a snapshot that equals the disk, or with
// an error and nothing left behind. Each verification that ends without an error
// must be right. Each deployment must leave the instances with the old or the
// new root volume, and the next one must finish it. No instance that tests an
// image may be left. To replay one: -run TestFaults -schedules 1 -seed N.
//
// Time is virtual, so that a busy machine does not add timeouts to those of the
// schedule.
func TestFaults(t *testing.T) {
	var done, failed atomic.Int64
	t.Run("seeds", func(t *testing.T) {
		slots := make(chan struct{}, runtime.GOMAXPROCS(0))
		for i := range *schedules {
			seed := *firstSeed + uint64(i)
			slots <- struct{}{}
			finished := make(chan struct{})
			go func() { <-finished; <-slots }()
			go func() {
				defer close(finished)
				t.Run(fmt.Sprint(seed), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						if schedule(t, seed) {
							done.Add(1)
						} else {
							failed.Add(1)
						}
					})
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
	choose := awstest.Random(seed, []float64{0.02, 0.1, 0.3}[random.IntN(3)], 1+random.IntN(3), faults...)
	plan := func(r awstest.Request) awstest.Fault {
		r.Resource = object.ReplaceAllString(r.Resource, "object") // the same in each run
		return choose(r)
	}
	knobs := awstest.Knobs{
		Grace:  time.Duration(random.IntN(300)) * time.Millisecond,
		Settle: time.Duration(random.IntN(300)) * time.Millisecond,
		Flap:   time.Duration(random.IntN(1000)) * time.Millisecond,
		Faults: plan, EncryptByDefault: pick(4), Console: up,
	}
	if pick(8) {
		knobs.PutRate = 50
	}
	if pick(6) {
		denied := []string{"ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot", "ec2:ImportSnapshot", "ec2:CopyImage", "ec2:ModifyImageAttribute", "ssm:PutParameter", "ec2:EnableImageDeprecation", "ec2:RunInstances", "ec2:GetConsoleOutput", "ec2:CreateReplaceRootVolumeTask"}
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
	if pick(3) {
		o.Launch = &ami.Launch{Limit: time.Minute}
	}
	verify, deploy := pick(2), pick(2)
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

	fake := awstest.StartMemory(t, knobs)
	fake.CreateBucket(home, "disks")
	t.Cleanup(func() {
		if t.Failed() {
			for _, r := range fake.Requests() {
				t.Log(r)
			}
		}
	})
	var instances []string
	if o.Parent == "auto" || deploy {
		faulty := fake.Knobs()
		fake.SetKnobs(awstest.Knobs{EncryptByDefault: knobs.EncryptByDefault})
		old := mustPublish(t, fake, write(t, content(seed+1, 12)), ami.Options{Name: "machine-0", Regions: o.Regions}).Images[0]
		if deploy {
			instances = []string{runInstance(t, fake, old.Image), runInstance(t, fake, old.Image)}
		}
		fake.SetKnobs(faulty)
	}
	before := len(fake.Snapshots())
	data := content(seed, 4+random.IntN(28))
	d := write(t, data)
	result, err := publish(ctx, t, fake, d, o)
	noOrphans(t, fake)
	if left := running(fake); len(left) > 0 {
		t.Errorf("after %v: instances left: %+v", err, left)
	}
	if err != nil {
		t.Log(err)
		if left := fake.Snapshots(); len(left) != before {
			t.Errorf("after %v: left behind: %v", err, left)
		}
		return false
	}
	if verify {
		verifyFaulty(ctx, t, fake, result.Images[0], d, data)
	}
	if deploy {
		deployFaulty(ctx, t, fake, result.Images[0], instances)
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

// verifyFaulty compares an image with its disk and with another one.
func verifyFaulty(ctx context.Context, t *testing.T, fake *awstest.Server, image *ami.Image, d *disk.Disk, data []byte) {
	t.Helper()
	changed := slices.Clone(data)
	changed[len(changed)-1] ^= 1
	for _, test := range []struct {
		disk *disk.Disk
		want bool
	}{{d, true}, {write(t, changed), false}} {
		v, err := ami.Verify(ctx, configure(t, fake), image.Image, test.disk, ami.Options{Timeout: time.Second})
		if err != nil {
			t.Log("verify: ", err)
		} else if v.Match != test.want || !test.want && v.Different != 1 {
			t.Errorf("verified as %+v, want a match: %v", v, test.want)
		}
	}
}

// deployFaulty deploys an image to instances, and again without faults.
func deployFaulty(ctx context.Context, t *testing.T, fake *awstest.Server, image *ami.Image, ids []string) {
	t.Helper()
	o := ami.DeployOptions{Instances: ids, Launch: new(ami.Launch), SSMParameter: "/machine", Timeout: time.Second, State: t.TempDir(), Limit: time.Minute}
	before := map[string]awstest.InstanceInfo{}
	for _, i := range fake.Instances() {
		before[i.ID] = i
	}
	check := func(err error) {
		t.Helper()
		if left := running(fake); len(left) > 0 {
			t.Errorf("after %v: instances left: %+v", err, left)
		}
		for _, i := range fake.Instances() {
			if !slices.Contains(ids, i.ID) {
				continue
			}
			switch old := before[i.ID]; {
			case i.State != "running":
				t.Errorf("after %v: %+v", err, i)
			case i.Volume == old.Volume && len(i.KeptVolumes) == 0 && err != nil:
			case i.Snapshot == image.Snapshot && slices.Equal(i.KeptVolumes, []string{old.Volume}):
			default:
				t.Errorf("after %v: %+v, before %+v", err, i, old)
			}
		}
	}
	_, err := deploy(ctx, t, fake, image.Image, o)
	if err != nil {
		t.Log("deploy: ", err)
	}
	check(err)
	fake.SetKnobs(awstest.Knobs{Console: up, Settle: 10 * time.Millisecond})
	fake.Advance(time.Minute)
	if _, err := deploy(t.Context(), t, fake, image.Image, o); err != nil {
		t.Errorf("deploy again: %v", err)
	}
	check(nil)
}

// S3 may accept a request and never answer it, or only after it took effect.
func TestStalledBucket(t *testing.T) {
	for _, test := range []struct {
		operation string
		fault     awstest.Fault
		blocks    int
	}{
		{"HeadBucket", awstest.Stall, 2},
		{"PutObject", awstest.Stall, 2},
		{"PutObject", awstest.LostStall, 2},
		{"CreateMultipartUpload", awstest.Stall, 40},
		{"UploadPart", awstest.Stall, 40},
		{"CompleteMultipartUpload", awstest.Stall, 40},
		{"CompleteMultipartUpload", awstest.LostStall, 40},
	} {
		t.Run(test.operation+" "+test.fault.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stalled := false
				fake := awstest.StartMemory(t, awstest.Knobs{Faults: func(r awstest.Request) awstest.Fault {
					if r.Operation == test.operation && r.Attempt == 1 {
						stalled = true
						return test.fault
					}
					return awstest.None
				}})
				fake.CreateBucket(home, "disks")
				data := content(1, test.blocks)
				result := mustPublish(t, fake, write(t, data), ami.Options{Method: ami.MethodImport, Bucket: "disks"})
				equal(t, fake, home, result.Images[0].Snapshot, data)
				if !stalled {
					t.Errorf("there was no %s", test.operation)
				}
				noOrphans(t, fake)
			})
		})
	}
}

// A request that waits to be sent again must not wait for one that waits for
// its buffer.
func TestOneWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := awstest.StartMemory(t, awstest.Knobs{Faults: func(r awstest.Request) awstest.Fault {
			if r.Operation == "PutSnapshotBlock" && r.Attempt == 1 {
				return awstest.Throttle
			}
			return awstest.None
		}})
		mustPublish(t, fake, write(t, content(1, 6)), ami.Options{Workers: 1})
	})
}
