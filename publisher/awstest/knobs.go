package awstest

import "time"

// Knobs set the state of the account and the behavior of the services. The zero
// value is a healthy account and services that answer at once.
type Knobs struct {
	// Latency is the time before each answer.
	Latency time.Duration
	// Grace is the time for which a new snapshot or image "does not exist" yet.
	Grace time.Duration
	// Settle is the time for which a completed snapshot, a new image, a copy or
	// an import task stays pending.
	Settle time.Duration
	// Flap makes every third Describe request hide objects that are younger
	// than this or return their previous state, and EBS direct return short or
	// empty pages.
	Flap time.Duration
	// Faults decides whether and how a request fails. It may be called
	// concurrently.
	Faults func(Request) Fault
	// PutRate is the number of blocks per second that a snapshot accepts before
	// it throttles (1000 on AWS); 0 means no limit.
	PutRate float64
	// PendingSnapshots and Images are quotas per region; 0 means the defaults
	// of AWS, 100 and 50000.
	PendingSnapshots, Images int
	// Instances is the quota of instances per region; 0 means no limit.
	Instances int
	// EncryptByDefault encrypts all new snapshots.
	EncryptByDefault bool
	// BlockPublicAccess rejects sharing images and snapshots publicly.
	BlockPublicAccess bool
	// RecycleBin is the time for which a rule of Recycle Bin retains deleted
	// snapshots and images; 0 means that there is no rule.
	RecycleBin time.Duration
	// SessionToken is the session token of temporary credentials; "" means that
	// the credentials are permanent. Requests with a different token get the
	// error of an expired one.
	SessionToken string
	// NotOptedIn lists the opt-in regions that are not enabled. They reject the
	// account's credentials ("Enable or disable AWS Regions in your account" in
	// the Account Management reference).
	NotOptedIn []string
	// Denied lists operations that the account may not call, for example
	// "ec2:RegisterImage". "ec2:*" denies a whole service.
	Denied []string
	// Policies are the IAM policies of the account's user in JSON, which must
	// allow each action on each of its resources; nil allows everything. See
	// [Server.SetKnobs].
	Policies []string
	// Roles lists the IAM roles of the account; nil means vmimport alone.
	Roles []string
	// Console returns the console output of an instance; nil means no output.
	Console func(InstanceInfo) []byte
	// InstanceAddress is the IP address of all instances; "" means none.
	InstanceAddress string
	// Impaired makes the instance status check of all instances fail.
	Impaired bool
	// ReplaceFailure is the state in which tasks that replace a root volume end:
	// failed, failed-detached, or "" for success.
	ReplaceFailure string
	// ImportFailure is the message with which import tasks fail; "" lets them
	// succeed.
	ImportFailure string
}

// config is a set of knobs with its decoded policies.
type config struct {
	Knobs
	policies []policy
}
