package awstest_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// only returns a schedule in which the first attempt of an operation fails.
func only(operation string, fault awstest.Fault) func(awstest.Request) awstest.Fault {
	return func(r awstest.Request) awstest.Fault {
		if r.Service+":"+r.Operation == operation && r.Attempt == 1 {
			return fault
		}
		return awstest.None
	}
}

// For each fault: what the client sees, and whether the request takes effect.
func TestFaults(t *testing.T) {
	block := noise(1, awstest.BlockSize)
	patience := 200 * time.Millisecond
	for fault, test := range map[awstest.Fault]struct {
		seen    func(error) bool
		written int
	}{
		awstest.None:      {func(err error) bool { return err == nil }, 1},
		awstest.Throttle:  {func(err error) bool { return code(err) == "ThrottlingException" }, 0},
		awstest.Internal:  {func(err error) bool { return code(err) == "InternalServerException" }, 0},
		awstest.Stall:     {timedOut, 0},
		awstest.Reset:     {isReset, 0},
		awstest.LostReset: {isReset, 1},
		awstest.LostStall: {timedOut, 1},
		awstest.LostError: {func(err error) bool { return code(err) == "InternalServerException" }, 1},
	} {
		t.Run(fault.String(), func(t *testing.T) {
			c := start(t, awstest.Knobs{Faults: only("ebs:PutSnapshotBlock", fault)})
			id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})).SnapshotId
			ctx, cancel := context.WithTimeout(c.ctx, patience)
			defer cancel()
			if _, err := c.ebs.PutSnapshotBlock(ctx, putInput(id, 0, block)); !test.seen(err) {
				t.Errorf("the client sees %v", err)
			}
			if n := c.fake.Snapshots()[0].Written; n != test.written {
				t.Errorf("%d blocks were written, not %d", n, test.written)
			}
			c.put(id, 0, block)
			must(c.ebs.CompleteSnapshot(c.ctx, completeInput(id, map[int32][]byte{0: block})))
			var logged awstest.Fault
			for _, r := range c.fake.Requests() {
				if r.Operation == "PutSnapshotBlock" && r.Attempt == 1 {
					logged = r.Fault
				}
			}
			if logged != fault || c.fake.Count("ebs:PutSnapshotBlock") != 2 {
				t.Errorf("the log is %v", c.fake.Requests())
			}
			c.clean()
		})
	}
}

func timedOut(err error) bool { return errors.Is(err, context.DeadlineExceeded) }

func isReset(err error) bool {
	var op *net.OpError
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.As(err, &op)
}

// Each service has its own error codes.
func TestFaultCodes(t *testing.T) {
	c := start(t, awstest.Knobs{})
	calls := map[string]func() error{
		"ebs": func() error {
			_, err := c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)})
			return err
		},
		"ec2": func() error { _, err := c.ec2.DescribeRegions(c.ctx, &ec2.DescribeRegionsInput{}); return err },
		"s3":  func() error { _, err := c.s3.ListBuckets(c.ctx, &s3.ListBucketsInput{}); return err },
		"sts": func() error { _, err := c.sts.GetCallerIdentity(c.ctx, &sts.GetCallerIdentityInput{}); return err },
		"iam": func() error {
			_, err := c.iam.GetRole(c.ctx, &iam.GetRoleInput{RoleName: aws.String("vmimport")})
			return err
		},
		"ssm": func() error {
			_, err := c.ssm.GetParameter(c.ctx, &ssm.GetParameterInput{Name: aws.String("a")})
			return err
		},
	}
	for service, codes := range map[string][3]string{
		"ebs": {"ThrottlingException", "InternalServerException", "AccessDeniedException"},
		"ec2": {"RequestLimitExceeded", "InternalError", "UnauthorizedOperation"},
		"s3":  {"SlowDown", "InternalError", "AccessDenied"},
		"sts": {"Throttling", "ServiceFailure", "AccessDenied"},
		"iam": {"Throttling", "ServiceFailure", "AccessDenied"},
		"ssm": {"ThrottlingException", "InternalServerError", "AccessDeniedException"},
	} {
		for i, knobs := range []awstest.Knobs{
			{Faults: func(awstest.Request) awstest.Fault { return awstest.Throttle }},
			{Faults: func(awstest.Request) awstest.Fault { return awstest.Internal }},
			{Denied: []string{service + ":*"}},
		} {
			c.fake.SetKnobs(knobs)
			if err := calls[service](); code(err) != codes[i] {
				t.Errorf("%s: %v, not %s", service, err, codes[i])
			}
		}
	}
	c.clean()
}

func TestRandom(t *testing.T) {
	schedule := func(seed uint64, limit int) (text string, failed int) {
		decide := awstest.Random(seed, 0.25, limit, awstest.Throttle, awstest.Reset)
		for attempt := 1; attempt <= 2000; attempt++ {
			f := decide(awstest.Request{Service: "ebs", Operation: "PutSnapshotBlock", Resource: "snap-0/blocks/1", Attempt: attempt})
			text += f.String()[:1]
			if f != awstest.None {
				failed++
			}
		}
		return text, failed
	}
	one, failed := schedule(1, 0)
	if failed < 400 || failed > 600 {
		t.Errorf("%d of 2000 requests fail, not a quarter", failed)
	}
	if strings.Count(one, "t") < 150 || strings.Count(one, "r") < 150 {
		t.Error("the faults are not equally likely")
	}
	if again, _ := schedule(1, 0); again != one {
		t.Error("the same seed returns a different schedule")
	}
	if two, _ := schedule(2, 0); two == one {
		t.Error("different seeds return the same schedule")
	}
	if limited, failed := schedule(1, 10); limited[:10] != one[:10] || failed > 10 {
		t.Error("more than the first 10 attempts can fail")
	}
}

// Concurrent workers write a disk under all faults that do not stall.
func TestWorkersUnderFaults(t *testing.T) {
	c := start(t, awstest.Knobs{
		Latency: time.Millisecond, PutRate: 2000, Grace: 20 * time.Millisecond, Settle: 20 * time.Millisecond,
		Faults: awstest.Random(7, 0.3, 4, awstest.Throttle, awstest.Internal, awstest.Reset, awstest.LostReset, awstest.LostError),
	})
	retry := func(call func() error) {
		for range 200 {
			if call() == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		t.Error("no success in 200 attempts")
	}
	var id string
	token := aws.String("once")
	retry(func() error {
		out, err := c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), ClientToken: token})
		if err == nil {
			id = *out.SnapshotId
		}
		return err
	})
	blocks := map[int32][]byte{}
	want := make([]byte, 16*awstest.BlockSize)
	var workers sync.WaitGroup
	for index := range int32(16) {
		block := noise(byte(index/2), awstest.BlockSize) // each twice
		blocks[index] = block
		copy(want[int(index)*awstest.BlockSize:], block)
		workers.Go(func() {
			retry(func() error {
				_, err := c.ebs.PutSnapshotBlock(c.ctx, putInput(id, index, block))
				return err
			})
		})
	}
	workers.Wait()
	retry(func() error {
		_, err := c.ebs.CompleteSnapshot(c.ctx, completeInput(id, blocks))
		return err
	})
	c.fake.Advance(time.Second)
	if !bytes.Equal(c.disk(id), want) {
		t.Error("the disk is not what the workers wrote")
	}
	if list := c.fake.Snapshots(); len(list) != 1 || list[0].Rewritten != 0 {
		t.Errorf("snapshots are %+v", list)
	}
	c.clean()
}

func TestLatency(t *testing.T) {
	c := start(t, awstest.Knobs{Latency: 50 * time.Millisecond})
	begin := time.Now()
	must(c.sts.GetCallerIdentity(c.ctx, &sts.GetCallerIdentityInput{}))
	if d := time.Since(begin); d < 50*time.Millisecond {
		t.Errorf("the answer came after %s", d)
	}
}

// Close must not wait for stalled requests.
func TestCloseWhileStalled(t *testing.T) {
	c := start(t, awstest.Knobs{Faults: func(awstest.Request) awstest.Fault { return awstest.Stall }})
	failed := make(chan error)
	go func() {
		_, err := c.sts.GetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{})
		failed <- err
	}()
	for c.fake.Count("sts:GetCallerIdentity") == 0 {
		time.Sleep(time.Millisecond)
	}
	c.fake.Close()
	if err := <-failed; err == nil {
		t.Error("the request was answered")
	}
}

// The SDK needs no configuration but the environment.
func TestEnv(t *testing.T) {
	fake := awstest.Start(t, awstest.Knobs{})
	for _, v := range fake.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	conf := must(awsconfig.LoadDefaultConfig(t.Context()))
	out := must(sts.NewFromConfig(conf).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}))
	if *out.Account != awstest.Account || conf.Region != awstest.Region {
		t.Errorf("account %s, region %s", *out.Account, conf.Region)
	}
	if v := fake.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

// The cost per block of the fake and the SDK together.
func BenchmarkPutSnapshotBlock(b *testing.B) {
	c := start(b, awstest.Knobs{})
	id := *must(c.ebs.StartSnapshot(c.ctx, &ebs.StartSnapshotInput{VolumeSize: aws.Int64(65536)})).SnapshotId
	block := noise(1, awstest.BlockSize)
	var next atomic.Int32
	b.SetBytes(awstest.BlockSize)
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		mine := bytes.Clone(block)
		for pb.Next() {
			index := next.Add(1)
			binary.LittleEndian.PutUint32(mine, uint32(index))
			must(c.ebs.PutSnapshotBlock(c.ctx, putInput(id, index, mine)))
		}
	})
}
