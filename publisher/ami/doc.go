// Package ami publishes disks as Amazon Machine Images.
//
// [New] checks a disk and the [Options] without calling AWS.
// [Publisher.Publish] then uploads the disk to a snapshot in each region and
// registers an AMI of it. [GC] removes what interrupted runs left behind.
//
// # Publishing twice
//
// A token identifies a publish: the digest of the disk's content and of all
// settings. Snapshots and AMIs carry it as the tag [TagToken]. A publish that
// finds its token on an AMI uploads nothing, whichever machine made that AMI.
//
// # Failures
//
// A run writes each change to a journal in [Options.State] before it asks AWS
// for it, together with the request's client token. If a run fails or its
// context is canceled, it removes what it made. If a run is killed, the next
// one with the same disk and options reads the journal and continues.
//
// Every error has a [Class], which [ClassOf] returns.
//
// # Testing
//
// Package awstest is a strict fake of AWS. It serves everything that this
// package calls.
package ami
