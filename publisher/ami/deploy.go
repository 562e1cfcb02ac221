package ami

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// DeployOptions say where and how to deploy an image. At least one of Instances,
// Launch and SSMParameter is required.
type DeployOptions struct {
	// Region is the region of the image. Default: the region of the AWS
	// configuration.
	Region string

	// Instances are the IDs of the instances whose root volumes to replace, one
	// after the other. Repeated ones are ignored.
	Instances []string

	// DeleteOld deletes the volumes that were replaced.
	DeleteOld bool

	// Launch tests the image with an instance first. Default: no test.
	Launch *Launch

	// SSMParameter is the name of an SSM parameter to set to the image's ID when
	// all of the above has succeeded.
	SSMParameter string

	// Port is a TCP port that each instance must accept a connection at.
	// Default: none.
	Port int

	// Limit is the time that an instance may take to be up again. Default: 15
	// minutes.
	Limit time.Duration

	// DryRun checks what can be checked and changes nothing.
	DryRun bool

	// State is the directory of the journals, as in [Options].
	State string

	// Timeout is the limit of one attempt of a request. Default: 20 s.
	Timeout time.Duration

	// Monitor receives the progress. May be nil.
	Monitor *Monitor
}

// A Deployment is what [Deploy] did.
type Deployment struct {
	Region    string      `json:"region"`
	Image     string      `json:"image"`    // ID
	Snapshot  string      `json:"snapshot"` // ID
	Tested    bool        `json:"tested"`   // with an instance of its own
	Instances []*Replaced `json:"instances"`
	Parameter string      `json:"parameter,omitempty"` // name of the SSM parameter that was set
}

// A Replaced is an instance that runs the image.
type Replaced struct {
	Instance string `json:"instance"`       // ID
	Existing bool   `json:"existing"`       // it ran the image already
	Task     string `json:"task,omitempty"` // ID of the task that replaced the root volume
	Volume   string `json:"volume"`         // ID of the root volume
	// OldVolume is the ID of the volume that was replaced and is kept.
	OldVolume string `json:"oldVolume,omitempty"`
}

// Deploy replaces the root volumes of running instances by volumes of an image.
// It stops at the first instance that is not up again, and returns the instances
// until then with the error. Repeating it continues: it waits for a task that is
// active, and leaves instances alone that run the image already.
func Deploy(ctx context.Context, cfg aws.Config, image string, o DeployOptions) (*Deployment, error) {
	if err := o.complete(image); err != nil {
		return nil, err
	}
	regions, err := resolveRegions(cfg, o.regions())
	if err != nil {
		return nil, err
	}
	d := &deployer{
		options: &o, image: image,
		aws:    connect(cfg, regions[0], newHTTPClient(cfg, 1), limits{o.Timeout, 1, 1, &o.Monitor.Retries}),
		result: &Deployment{Region: regions[0], Image: image, Instances: []*Replaced{}},
	}
	if err := d.preflight(ctx); err != nil || o.DryRun {
		return d.result, err
	}
	return d.result, d.run(ctx)
}

func (o *DeployOptions) regions() []string {
	if o.Region == "" {
		return nil
	}
	return []string{o.Region}
}

func (o *DeployOptions) complete(image string) error {
	setDefault(&o.Limit, defaultLaunchLimit)
	setDefault(&o.Timeout, defaultTimeout)
	if o.Monitor == nil {
		o.Monitor = new(Monitor)
	}
	if o.State == "" {
		dir, err := stateDir()
		if err != nil {
			return err
		}
		o.State = dir
	}
	o.Instances = unique(o.Instances)
	switch {
	case !strings.HasPrefix(image, "ami-"):
		return fail(ClassUsage, "%q is not the ID of an AMI (ami-…)", image)
	case len(o.Instances) == 0 && o.Launch == nil && o.SSMParameter == "":
		return fail(ClassUsage, "nothing to do: use --instance, --launch or --ssm-parameter")
	}
	for _, id := range o.Instances {
		if !strings.HasPrefix(id, "i-") {
			return fail(ClassUsage, "%q is not the ID of an instance (i-…)", id)
		}
	}
	if o.Launch != nil {
		launch := *o.Launch
		launch.complete()
		if o.Launch = &launch; launch.check() != nil {
			return launch.check()
		}
	}
	return checkPort(o.Port)
}

// A deployer deploys one image.
type deployer struct {
	options      *DeployOptions
	aws          services
	image        string // ID
	architecture string
	result       *Deployment
}

func (d *deployer) step(format string, args ...any) {
	if report := d.options.Monitor.Step; report != nil {
		report(d.result.Region, fmt.Sprintf(format, args...))
	}
}

// preflight checks the image and all instances before the first change.
func (d *deployer) preflight(ctx context.Context) error {
	o, region := d.options, d.result.Region
	image, err := d.aws.images.existing(ctx, d.image)
	if err != nil {
		return describe("look for "+d.image, err)
	}
	if image == nil {
		return fail(ClassUsage, "there is no AMI %s in %s", d.image, region)
	}
	if image.State != types.ImageStateAvailable {
		return fail(ClassUsage, "%s is %s, not available", d.image, image.State)
	}
	d.architecture, d.result.Snapshot = string(image.Architecture), rootSnapshot(image)
	for _, id := range o.Instances {
		instance, err := d.aws.instances.byID(ctx, id)
		if err != nil {
			return describe("look for "+id, err)
		}
		if instance == nil {
			return fail(ClassUsage, "there is no instance %s in %s", id, region)
		}
		if err := replaceable(instance, image); err != nil {
			return err
		}
		if err := refused("check the replacement of the root volume of "+id, "DryRunOperation", d.aws.instances.tryReplaceRoot(ctx, d.replaceRequest(id, ""))); err != nil {
			return err
		}
	}
	if o.Launch != nil {
		if err := refused("check the start of an instance", "DryRunOperation", d.aws.instances.tryRun(ctx, d.launcher(nil).request())); err != nil {
			return err
		}
	}
	if o.SSMParameter != "" {
		_, err := d.aws.parameters.get(ctx, o.SSMParameter)
		return err
	}
	return nil
}

// replaceable checks whether the root volume of an instance can be replaced by
// one of an image ("Replace the root volume for an Amazon EC2 instance" in the
// EC2 user guide).
func replaceable(instance *types.Instance, image *types.Image) error {
	id := *instance.InstanceId
	arch, mode := string(image.Architecture), firmware(string(image.Architecture), string(image.BootMode))
	switch {
	case instance.State == nil || instance.State.Name != types.InstanceStateNameRunning:
		return fail(ClassUsage, "%s is not running: EC2 replaces root volumes only of running instances", id)
	case instance.RootDeviceType != types.DeviceTypeEbs || rootVolume(instance) == "":
		return fail(ClassUsage, "%s has no EBS volume as its root device", id)
	case string(instance.Architecture) != arch:
		return fail(ClassUsage, "%s is for %s, but %s has the architecture %s", *image.ImageId, arch, id, instance.Architecture)
	case firmware(arch, string(instance.BootMode)) != mode:
		return fail(ClassUsage, "%s boots with %s, but %s with %s: start a new instance instead", *image.ImageId, mode, id, firmware(arch, string(instance.BootMode)))
	}
	return nil
}

// firmware returns the boot mode of instances of an image ("Instance launch
// behavior with Amazon EC2 boot modes" in the EC2 user guide).
func firmware(arch, mode string) string {
	if arch == string(types.ArchitectureValuesArm64) || mode == string(types.BootModeValuesUefi) || mode == string(types.BootModeValuesUefiPreferred) {
		return string(types.BootModeValuesUefi)
	}
	return string(types.BootModeValuesLegacyBios)
}

func (d *deployer) launcher(j *journal) launcher {
	return launcher{options: d.options.Launch, instances: d.aws.instances, journal: j, step: d.step, image: d.image, architecture: d.architecture}
}

// run tests the image, replaces the root volumes and sets the parameter.
func (d *deployer) run(ctx context.Context) error {
	o := d.options
	if o.Launch != nil {
		if err := d.test(ctx); err != nil {
			return err
		}
		d.result.Tested = true
	}
	for _, id := range o.Instances {
		replaced, err := d.replace(ctx, id)
		if replaced != nil {
			d.result.Instances = append(d.result.Instances, replaced)
		}
		if err != nil {
			return err
		}
	}
	if o.SSMParameter == "" {
		return nil
	}
	before, err := d.aws.parameters.get(ctx, o.SSMParameter)
	if err != nil {
		return err
	}
	if aws.ToString(before.Value) != d.image {
		d.step("setting %s to %s", o.SSMParameter, d.image)
		if err := d.aws.parameters.put(ctx, o.SSMParameter, d.image, before); err != nil {
			return err
		}
	}
	d.result.Parameter = o.SSMParameter
	return nil
}

// test tests the image with an instance. The journal lets the next run find an
// instance that a killed run has started.
func (d *deployer) test(ctx context.Context) error {
	j, err := openJournal(ctx, d.options.State, digest([]string{"deploy", d.result.Region, d.image}), func() {
		d.step("waiting for another run that deploys the same image")
	})
	if err != nil {
		return err
	}
	err = d.launcher(j).test(ctx)
	done := j.Launch == nil || j.Launch.Ended // otherwise the next run must find the instance
	return errors.Join(err, j.close(done))
}

func (d *deployer) replaceRequest(id, token string) *ec2.CreateReplaceRootVolumeTaskInput {
	input := &ec2.CreateReplaceRootVolumeTaskInput{
		InstanceId:               &id,
		ImageId:                  &d.image,
		DeleteReplacedRootVolume: &d.options.DeleteOld,
		TagSpecifications: []types.TagSpecification{{
			ResourceType: types.ResourceTypeReplaceRootVolumeTask,
			Tags:         []types.Tag{{Key: aws.String("Name"), Value: aws.String("slipway-publish aws deploy " + d.image)}},
		}},
	}
	if token != "" {
		input.ClientToken = &token
	}
	return input
}

// replace replaces the root volume of an instance and waits until the instance
// is up. The result is nil until the volume is replaced.
func (d *deployer) replace(ctx context.Context, id string) (*Replaced, error) {
	instance, err := d.aws.instances.byID(ctx, id)
	if err != nil {
		return nil, describe("look for "+id, err)
	}
	if instance == nil || rootVolume(instance) == "" {
		return nil, fail(ClassOther, "%s is gone, or has no root volume any more", id)
	}
	tasks, err := d.aws.instances.tasksOf(ctx, id)
	if err != nil {
		return nil, describe("list the tasks that replace the root volume of "+id, err)
	}
	task, err := d.active(id, tasks)
	if err != nil {
		return nil, err
	}
	old := rootVolume(instance)
	snapshot, err := d.aws.instances.snapshotOf(ctx, old)
	if err != nil {
		return nil, err
	}
	replaced := &Replaced{Instance: id, Volume: old}
	if task == "" && snapshot == d.result.Snapshot {
		d.step("%s runs %s already", id, d.image)
		replaced.Existing = true
		return replaced, d.up(ctx, id)
	}
	if task == "" {
		// The token is the same in a run that repeats this one, but not after a
		// task that failed.
		token := digest([]any{"replace", d.image, id, old, d.options.DeleteOld, len(tasks)})
		d.step("replacing %s of %s", old, id)
		made, err := d.aws.instances.replaceRoot(ctx, d.replaceRequest(id, token))
		if err != nil {
			return nil, describe("replace the root volume of "+id, err)
		}
		task = *made.ReplaceRootVolumeTaskId
	}
	deleted, err := d.wait(ctx, id, task, old)
	if err != nil {
		return nil, err
	}
	if replaced.Task = task; !deleted {
		replaced.OldVolume = old
	}
	if replaced.Volume, err = d.attached(ctx, id, old); err != nil {
		return nil, err
	}
	return replaced, d.up(ctx, id)
}

// active returns the task that is replacing the root volume of an instance, or
// "". A task with another image is an error.
func (d *deployer) active(id string, tasks []types.ReplaceRootVolumeTask) (string, error) {
	for _, t := range tasks {
		switch t.TaskState {
		case types.ReplaceRootVolumeTaskStatePending, types.ReplaceRootVolumeTaskStateInProgress:
		default:
			continue
		}
		if aws.ToString(t.ImageId) != d.image {
			return "", fail(ClassOther, "%s is replacing the root volume of %s with %s: wait for its end and run the command again",
				*t.ReplaceRootVolumeTaskId, id, cmp.Or(aws.ToString(t.ImageId), aws.ToString(t.SnapshotId), "its launch state"))
		}
		return *t.ReplaceRootVolumeTaskId, nil
	}
	return "", nil
}

// wait waits for the end of a task. It reports whether the old volume is
// deleted.
func (d *deployer) wait(ctx context.Context, id, task, old string) (deleted bool, err error) {
	d.step("waiting for %s", task)
	err = poll(ctx, task, time.Hour, func(ctx context.Context) (bool, error) {
		t, err := d.aws.instances.task(ctx, task)
		if err != nil {
			return false, describe("wait for "+task, err)
		}
		if t == nil {
			return false, nil
		}
		deleted = aws.ToBool(t.DeleteReplacedRootVolume)
		switch t.TaskState {
		case types.ReplaceRootVolumeTaskStateSucceeded:
			return true, nil
		case types.ReplaceRootVolumeTaskStateFailed:
			return false, fail(ClassOther, "%s failed: %s keeps its root volume %s", task, id, old)
		case types.ReplaceRootVolumeTaskStateFailedDetached:
			return false, fail(ClassOther, "%s failed: %s has no root volume any more; stop the instance and attach %s again", task, id, old)
		}
		return false, nil
	})
	if err != nil && (ctx.Err() != nil || errors.Is(err, errPending)) {
		err = &Error{ClassOf(err), fmt.Errorf("%w; %s goes on: run the same command again to wait for it", err, task)}
	}
	return deleted, err
}

// attached returns the new root volume of an instance. It must be one of the
// image.
func (d *deployer) attached(ctx context.Context, id, old string) (string, error) {
	var volume string
	err := poll(ctx, id, patience, func(ctx context.Context) (bool, error) {
		instance, err := d.aws.instances.byID(ctx, id)
		if err != nil {
			return false, describe("look for "+id, err)
		}
		if instance != nil {
			volume = rootVolume(instance)
		}
		return volume != "" && volume != old, nil
	})
	if err != nil {
		return "", err
	}
	snapshot, err := d.aws.instances.snapshotOf(ctx, volume)
	if err == nil && snapshot != d.result.Snapshot {
		err = fail(ClassOther, "the new root volume %s of %s was made of %s, not of %s", volume, id, snapshot, d.result.Snapshot)
	}
	return volume, err
}

// up waits until an instance is up.
func (d *deployer) up(ctx context.Context, id string) error {
	d.step("waiting until %s is up", id)
	w := watcher{instances: d.aws.instances, step: d.step, id: id, port: d.options.Port}
	return w.wait(ctx, d.options.Limit)
}
