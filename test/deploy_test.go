package test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/internal/vm"
	"github.com/slipway-build/slipway/internal/vm/cloud"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// TestAWSDeploy rolls the machine of examples/aws.yml out to an instance of
// another image. QEMU boots the replaced root volume, and slipway-publish waits
// for ssh on that machine. With -boot, QEMU also boots the instance that tests
// the image first.
func TestAWSDeploy(t *testing.T) {
	stack.Require(t)
	a := newAccount(t)
	path := awsDisk(t)
	first := a.publish(t, changedDisk(t, path), "--name=first")
	image := a.publish(t, path, "--name=second")
	id := a.runInstance(t, first)
	key, err := vm.NewKey(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	disk := a.save(t, image)
	// boot boots the root volume of an instance, which is one of the image.
	boot := func(i awstest.InstanceInfo) (*guest, error) {
		if i.Snapshot != image.Snapshot {
			return nil, fmt.Errorf("the root volume of %s was made of %s, not of %s", i.ID, i.Snapshot, image.Snapshot)
		}
		machine, err := vm.Start(t.Context(), vm.Config{
			Disk: disk, LogDir: filepath.Join(stack.Artifacts(t), i.ID),
			Metadata: &cloud.Instance{ID: i.ID, Hostname: "machine", PublicKeys: []string{key.Public}},
		})
		if err != nil {
			return nil, err
		}
		t.Cleanup(machine.Kill)
		return &guest{machine, key}, nil
	}

	knobs := awstest.Knobs{InstanceAddress: "127.0.0.1"}
	port := freePort(t)
	args := []string{"--instance", id, "--wait-port", fmt.Sprint(port), "--wait-timeout", "4m"}
	if *bootAll {
		var tested sync.Once
		var machine *guest
		knobs.Console = func(i awstest.InstanceInfo) []byte {
			tested.Do(func() {
				if machine, err = boot(i); err != nil {
					t.Error(err)
				}
			})
			if machine == nil {
				return nil
			}
			return []byte(machine.ConsoleTail(1000))
		}
		a.SetKnobs(knobs)
		if result := a.deploy(t, image, "--launch", "--wait-timeout", "4m"); !result.Tested {
			t.Errorf("the result is %+v", result)
		}
		machine.Kill()
	}
	a.SetKnobs(knobs)

	// The port opens when the machine on the replaced volume accepts ssh.
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	up := make(chan *guest, 1)
	go func() {
		defer close(up)
		var i awstest.InstanceInfo
		for i.Snapshot != image.Snapshot {
			if ctx.Err() != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
			i = a.instance(id)
		}
		g, err := boot(i)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := g.WaitSSH(ctx, key); err != nil {
			t.Error(err)
			return
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Error(err)
			return
		}
		context.AfterFunc(t.Context(), func() { l.Close() })
		up <- g
	}()
	result := a.deploy(t, image, args...)
	if i := a.instance(id); len(result.Instances) != 1 || result.Instances[0].Volume != i.Volume || i.Snapshot != image.Snapshot {
		t.Errorf("the result is %+v, the instance %+v", result, i)
	}
	g := <-up
	if g == nil {
		t.Fatal("the machine on the replaced volume is not up")
	}
	if got := g.output(t, inMachine("cat /var/config/instance_id")); got != id {
		t.Errorf("the machine on the replaced volume is %q, not %s", got, id)
	}
}

// changedDisk returns a copy of a disk with another signature.
func changedDisk(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[440] ^= 1 // MBR, UEFI Specification 2.10, 5.2.1
	changed := filepath.Join(t.TempDir(), "changed.raw")
	if err := os.WriteFile(changed, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return changed
}

// instance returns the state of an instance.
func (a account) instance(id string) awstest.InstanceInfo {
	for _, i := range a.Instances() {
		if i.ID == id {
			return i
		}
	}
	return awstest.InstanceInfo{}
}

// runInstance starts an instance of an image, as a user does.
func (a account) runInstance(t *testing.T, image *ami.Image) string {
	t.Helper()
	client := ec2.New(ec2.Options{
		Region: image.Region, BaseEndpoint: aws.String(a.URL()), HTTPClient: a.Client(),
		Credentials: credentials.NewStaticCredentialsProvider(awstest.AccessKeyID, awstest.SecretAccessKey, ""),
	})
	out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: &image.Image, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	return *out.Instances[0].InstanceId
}
