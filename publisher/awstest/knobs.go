package awstest

import "time"

// Knobs set how the account is and how the service behaves. The zero value is a healthy account and an instant service.
type Knobs struct {
	// Latency passes before each answer.
	Latency time.Duration
	// Grace is how long a new snapshot "does not exist" yet for those who write or describe it.
	Grace time.Duration
	// Settle is how long a completed snapshot, a new image, a copy or an import task stays pending.
	Settle time.Duration
	// Flap makes every third Describe deny an object that is younger than this or show its former state, and EBS direct
	// give short or empty pages of lists.
	Flap time.Duration
	// Faults decides for each request if and how it fails. It may be called at the same time for several.
	Faults func(Request) Fault
	// PutRate is how many blocks per second a snapshot takes before it throttles (AWS: 1000); 0 is no limit.
	PutRate float64
	// PendingSnapshots and Images are quotas per region; 0 is AWS's 100 and 50000.
	PendingSnapshots, Images int
	// EncryptByDefault encrypts every new snapshot, asked or not.
	EncryptByDefault bool
	// BlockPublicAccess forbids to share images and snapshots with all.
	BlockPublicAccess bool
	// Denied are operations that the account may not call, such as "ec2:RegisterImage"; "ec2:*" is all of a service.
	Denied []string
	// Roles are the account's IAM roles; nil is vmimport alone.
	Roles []string
	// ImportFailure makes import tasks end with this message instead of a snapshot.
	ImportFailure string
}
