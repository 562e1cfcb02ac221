// Package awstest is a strict fake of the parts of AWS that publish and deploy
// a machine image: EBS direct APIs, the snapshots, images, import tasks and
// instances of EC2, Auto Scaling groups, Spot requests, S3, STS, IAM and SSM
// parameters. It speaks the AWS protocols over HTTP, so that every client works
// with it unchanged.
// [Server.Env] returns the environment variables that point a client at the
// fake:
//
//	fake := awstest.Start(t, awstest.Knobs{})
//	cmd := exec.Command("publish", "disk.raw")
//	cmd.Env = append(os.Environ(), fake.Env()...)
//	…
//	disk, err := fake.Disk("us-east-1", "snap-0123456789abcdef0")  // what an instance would boot
//	violations := fake.Violations()                                // must be empty
//
// # What it checks
//
// The fake checks each request as AWS documents it, or more strictly:
//
//   - It recomputes the signature (Signature Version 4).
//   - A block must have 512 KiB and match its SHA-256. A snapshot must be completed
//     with the number of written blocks and their linear checksum.
//   - A request that repeats a client token gets the first answer again. A token
//     with different parameters is an error.
//   - EC2 parameters must be known, and their values and combinations valid.
//   - S3 bodies must match every digest that comes with them, and the parts of an
//     upload must have the documented sizes and order.
//
// A request that no correct client sends, even after a network failure, gets
// the error that AWS would return and is recorded as a [Violation].
//
// # What it models
//
// Each region has its own resources. A snapshot inherits the blocks of its
// parent. Unwritten blocks read as zeros in an unencrypted snapshot and as
// noise in an encrypted one, as on AWS: if a client skips zeros there, the disk
// does not boot. Images, copies, import tasks, instances and the validation of
// SSM parameters with the data type aws:ec2:image take [Knobs.Settle] to
// complete; [Server.Advance] skips the wait. Images can be disabled, snapshots
// archived and locked. Instances run nothing: [Server.Instances] and
// [Server.Disk] return what they would boot, and [Knobs.Console] returns what
// they would print.
//
// Where AWS documentation is silent, the fake is as strict as a careful client
// can bear:
//
//   - CompleteSnapshot may be repeated with the same count and checksum, because
//     the first answer may be lost.
//   - A snapshot that is not completed within its timeout enters the state error
//     and rejects blocks.
//   - A completed multipart upload no longer exists.
//   - RegisterImage and the parent of StartSnapshot require a completed snapshot.
//
// Data is kept in anonymous files in [os.TempDir], equal blocks once. Memory
// holds only their digests.
//
// # How it fails
//
// [Knobs] sets limits, latency and the state of the account. [Knobs.Faults]
// decides for each request whether and how it fails: throttled, rejected, never
// answered, reset, or reset after it took effect. [Random] returns a schedule
// of faults that can be replayed.
//
// # Limitations
//
// The fake does not model:
//
//   - IAM, except [Knobs.Denied] and [Knobs.Policies]: identity-based policies with
//     Action, Resource and Condition, and the condition keys aws:RequestTag,
//     aws:ResourceTag, aws:TagKeys, aws:RequestedRegion, aws:PrincipalAccount,
//     ec2:ResourceTag, ec2:CreateAction and iam:PassedToService.
//   - KMS. Every well-formed key of the region exists and may be used.
//   - Other accounts. Sharing is recorded, but no other account exists.
//   - Networks, key pairs, instance types, and volumes other than the roots of
//     instances. Instances have the address [Knobs.InstanceAddress], and RunInstances
//     only compares the architecture of the instance type with that of the image.
//   - Auto Scaling and Spot: groups, launch configurations, Spot Fleets and Spot
//     Instance requests name images, but start no instances. Fleets are of the
//     type maintain, and Spot Instance requests persistent.
//   - Rules of Recycle Bin: [Knobs.RecycleBin] retains all snapshots and images.
//   - Versions, encryption and access policies of S3, and all S3 requests but those
//     in s3Routes.
//   - Products, billing, Outposts, Local Zones and partitions other than aws.
//
// The rules come from the service models in github.com/aws/aws-sdk-go-v2,
// "Amazon EBS direct APIs" in the EBS user guide, and the API references of
// EC2, S3, IAM, STS and SSM.
package awstest
