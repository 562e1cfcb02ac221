package ami

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A Launch says how to test an image with an instance: it starts, its status
// checks must pass and its console must print a line, and it is terminated in
// any case. All fields are optional.
type Launch struct {
	// InstanceType is the type of the instance. Default: t3.micro or t4g.micro.
	InstanceType string

	// Subnet and SecurityGroups are IDs. Default: those of the default VPC.
	Subnet         string
	SecurityGroups []string

	// Console is a regular expression (RE2) that the output on the console must
	// match. Default: [DefaultConsole].
	Console string

	// Port is a TCP port that must accept a connection, at the public or the
	// private address of the instance. Default: none.
	Port int

	// Limit is the time that all of it may take. Default: 15 minutes.
	Limit time.Duration
}

// DefaultConsole matches what a machine prints when it is up: the line of
// Slipway's init, or the login line of a getty.
const DefaultConsole = `machine is up|login:`

// TagLaunch is the tag of instances that test an image. Its value is the run
// that started the instance. GC terminates instances with it.
const TagLaunch = "slipway:launch"

const defaultLaunchLimit = 15 * time.Minute

func (l *Launch) complete() {
	setDefault(&l.Console, DefaultConsole)
	setDefault(&l.Limit, defaultLaunchLimit)
}

func (l *Launch) check() error {
	if _, err := regexp.Compile(l.Console); err != nil {
		return fail(ClassUsage, "invalid expression for the console: %w", err)
	}
	return checkPort(l.Port)
}

func checkPort(port int) error {
	if port < 0 || port > 65535 {
		return fail(ClassUsage, "invalid port %d: use 1 to 65535", port)
	}
	return nil
}

// A launched is the part of a record about the instance that tests the image.
type launched struct {
	Request  *ec2.RunInstancesInput
	Instance string // ID; "" until the response arrived
	Ended    bool   // the instance is terminated, or was never started
}

// A launcher tests an image with an instance.
type launcher struct {
	options   *Launch
	instances instances
	journal   *journal // nil in a dry run
	step      func(format string, args ...any)

	image        string // ID
	architecture string
	tags         map[string]string // of the user
}

// request returns the request that starts the instance.
func (l launcher) request() *ec2.RunInstancesInput {
	run, before := strings.Repeat("0", 32), ""
	if j := l.journal; j != nil {
		run = j.Run
		if j.Launch != nil {
			before = *j.Launch.Request.ClientToken
		}
	}
	tags := map[string]string{"Name": "slipway-publish test of " + l.image}
	maps.Copy(tags, l.tags)
	tags[TagLaunch] = run
	var list []types.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	kind := "t3.micro"
	if l.architecture == string(types.ArchitectureValuesArm64) {
		kind = "t4g.micro"
	}
	input := &ec2.RunInstancesInput{
		ImageId:          &l.image,
		InstanceType:     types.InstanceType(cmp.Or(l.options.InstanceType, kind)),
		MinCount:         aws.Int32(1),
		MaxCount:         aws.Int32(1),
		SecurityGroupIds: l.options.SecurityGroups,
		ClientToken:      aws.String(digest([]string{run, "launch", l.image, before})),
		// A machine that powers off leaves no stopped instance.
		InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate,
		TagSpecifications: []types.TagSpecification{
			{ResourceType: types.ResourceTypeInstance, Tags: list},
			{ResourceType: types.ResourceTypeVolume, Tags: list},
		},
	}
	if l.options.Subnet != "" {
		input.SubnetId = &l.options.Subnet
	}
	return input
}

// test starts an instance of the image, unless an earlier run has tested it,
// waits until the machine is up, and terminates the instance in any case.
func (l launcher) test(ctx context.Context) (err error) {
	if l.journal.Tested == l.image {
		return nil
	}
	defer func() {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), stepTime)
		defer cancel()
		if left := l.stop(limited); left != nil {
			err = leftInstance(err, left)
		}
		if err == nil {
			err = l.journal.note(record{Tested: l.image})
		}
	}()
	if err := l.start(ctx); err != nil {
		return err
	}
	return l.wait(ctx)
}

// leftInstance adds to the cause of a failure that an instance was left.
func leftInstance(cause, left error) error {
	if cause == nil {
		return left
	}
	return &Error{ClassOf(cause), fmt.Errorf("%w; %w", cause, left)}
}

// start starts the instance, or finds the one of a run that was killed.
func (l launcher) start(ctx context.Context) error {
	for {
		j := l.journal
		if j.Launch == nil || j.Launch.Ended || aws.ToString(j.Launch.Request.ImageId) != l.image {
			if err := l.stop(ctx); err != nil {
				return err
			}
			if err := j.note(record{Launch: &launched{Request: l.request()}}); err != nil {
				return err
			}
		}
		l.step("starting an instance of %s to test it", l.image)
		id, err := l.instances.run(ctx, j.Launch.Request)
		if hasCode("IdempotentInstanceTerminated")(err) { // someone has terminated that of a killed run
			if err := j.note(record{Launch: &launched{Request: j.Launch.Request, Ended: true}}); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return describe("start an instance of "+l.image, err)
		}
		return j.note(record{Launch: &launched{Request: j.Launch.Request, Instance: id}})
	}
}

// stop terminates the instance of the journal, if there is one. If the response
// to its start was lost, stop sends the request again to find the instance.
func (l launcher) stop(ctx context.Context) error {
	launch := l.journal.Launch
	if launch == nil || launch.Ended {
		return nil
	}
	id := launch.Instance
	if id == "" {
		var err error
		if id, err = l.instances.run(ctx, launch.Request); err != nil && !isRefusal(err) {
			return fmt.Errorf("find the instance that tests %s: %w; terminate it with slipway-publish aws gc", aws.ToString(launch.Request.ImageId), err)
		}
	}
	if id != "" {
		l.step("terminating %s", id)
		start := time.Now()
		err := l.instances.terminate(ctx, id, func(err error) bool { return isInstanceMissing(err) && time.Since(start) < settled })
		if err != nil && !isInstanceMissing(err) {
			return fmt.Errorf("%w; terminate it with slipway-publish aws gc", describe("terminate "+id, err))
		}
	}
	return l.journal.note(record{Launch: &launched{Request: launch.Request, Instance: id, Ended: true}})
}

// wait waits until the machine is up.
func (l launcher) wait(ctx context.Context) error {
	id := l.journal.Launch.Instance
	l.step("waiting until %s is up", id)
	w := watcher{instances: l.instances, step: l.step, id: id, port: l.options.Port, console: regexp.MustCompile(l.options.Console)}
	return w.wait(ctx, l.options.Limit)
}

// A watcher waits until an instance is up: its status checks pass, its console
// has printed what it must, and it accepts connections.
type watcher struct {
	instances instances
	step      func(format string, args ...any)
	id        string
	port      int            // TCP; 0 for none
	console   *regexp.Regexp // nil for none

	printed  bool
	output   []byte // last output on the console
	waitsFor string
}

// panics matches what Linux prints when it cannot continue.
var panics = regexp.MustCompile(`Kernel panic - not syncing[^\r\n]*`)

func (w *watcher) wait(ctx context.Context, limit time.Duration) error {
	err := poll(ctx, w.id, limit, w.check)
	if errors.Is(err, errPending) {
		return w.fail("is not up after %v: %s", limit, w.waitsFor)
	}
	return err
}

// fail returns an error with the last line on the console. All lines go to the
// progress.
func (w *watcher) fail(format string, args ...any) error {
	message := fmt.Sprintf(format, args...)
	const most = 20
	lines := slices.DeleteFunc(strings.FieldsFunc(string(w.output), func(c rune) bool { return c == '\n' || c == '\r' }),
		func(line string) bool { return strings.TrimSpace(line) == "" })
	for _, line := range lines[max(0, len(lines)-most):] {
		w.step("%s: console: %q", w.id, line)
	}
	if len(lines) > 0 {
		message += fmt.Sprintf("; the last line on its console is %.200q", lines[len(lines)-1])
	}
	return fail(ClassDisk, "%s %s", w.id, message)
}

func (w *watcher) check(ctx context.Context) (bool, error) {
	instance, err := w.instances.byID(ctx, w.id)
	if err != nil {
		return false, describe("look for "+w.id, err)
	}
	if instance == nil || instance.State == nil || instance.State.Name == types.InstanceStateNamePending {
		w.waitsFor = "it is pending"
		return false, nil
	}
	if w.console != nil && !w.printed {
		if err := w.read(ctx); err != nil {
			return false, err
		}
	}
	if state := instance.State.Name; state != types.InstanceStateNameRunning {
		reason := ""
		if instance.StateReason != nil {
			reason = ": " + aws.ToString(instance.StateReason.Message)
		}
		return false, w.fail("is %s%s", state, reason)
	}
	if found := panics.Find(w.output); found != nil {
		return false, w.fail("does not boot: %.200q", found)
	}
	if w.console != nil && !w.printed {
		w.waitsFor = fmt.Sprintf("its console has not printed %q", w.console)
		return false, nil
	}
	system, status, err := w.instances.checks(ctx, w.id)
	if err != nil {
		return false, describe("read the status checks of "+w.id, err)
	}
	if system != types.SummaryStatusOk || status != types.SummaryStatusOk {
		w.waitsFor = fmt.Sprintf("the status checks are %q (system) and %q (instance)", system, status)
		return false, nil
	}
	return w.port == 0 || w.connect(ctx, instance), nil
}

// read reads the console.
func (w *watcher) read(ctx context.Context) error {
	output, err := w.instances.console(ctx, w.id)
	if err != nil {
		return describe("read the console of "+w.id, err)
	}
	w.output = output
	if line := w.console.Find(output); line != nil {
		w.printed = true
		w.step("%s: console: %.200q", w.id, line)
	}
	return nil
}

// connect reports whether the instance accepts a connection at one of its
// addresses.
func (w *watcher) connect(ctx context.Context, instance *types.Instance) bool {
	w.waitsFor = fmt.Sprintf("port %d: it has no address", w.port)
	for _, address := range unique([]string{aws.ToString(instance.PublicIpAddress), aws.ToString(instance.PrivateIpAddress), aws.ToString(instance.Ipv6Address)}) {
		if address == "" {
			continue
		}
		dialer := net.Dialer{Timeout: 5 * time.Second}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, strconv.Itoa(w.port)))
		if err == nil {
			conn.Close()
			return true
		}
		w.waitsFor = fmt.Sprintf("port %d: %v", w.port, err)
	}
	return false
}
