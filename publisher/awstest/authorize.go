package awstest

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
)

// authorize checks the request against Knobs.Policies, with the actions and
// resources of the Service Authorization Reference.
func (c *call) authorize(svc *service) error {
	if c.knobs.Policies == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.accesses() {
		if !allowed(c.policies, a) {
			e := svc.denied
			e.message = "user " + userARN + " is not authorized to perform " + a.action + " on resource " + a.resource
			return &e
		}
	}
	return nil
}

// accesses returns what the request requires. The caller holds s.mu.
func (c *call) accesses() []access {
	action := c.Service + ":" + c.Operation
	switch c.Service {
	case "ec2":
		return c.ec2Accesses()
	case "ebs":
		id, _, _ := strings.Cut(c.Resource, "/")
		if c.Operation != "StartSnapshot" {
			return []access{c.access(action, cmp.Or(id, "snap-*"), nil)}
		}
		var in struct{ Tags tags }
		_ = json.Unmarshal(c.body, &in) // the operation reports errors
		return []access{c.access(action, "snap-*", in.Tags)}
	case "s3":
		name, key := s3Address(c.http)
		resource := "arn:aws:s3:::" + cmp.Or(name, "*")
		if key != "" {
			resource += "/" + key
		}
		return []access{{"s3:" + cmp.Or(s3Actions[c.Operation], c.Operation), resource, c.commonKeys()}}
	case "ssm":
		var in struct{ Names []string }
		_ = json.Unmarshal(c.body, &in)
		if c.Resource != "" {
			in.Names = append(in.Names, c.Resource)
		}
		var out []access
		if c.Operation == "DescribeParameters" {
			return []access{{action, "*", c.commonKeys()}}
		}
		for _, name := range in.Names {
			out = append(out, access{action, "arn:aws:ssm:" + c.Region + ":" + Account + ":parameter/" + strings.TrimPrefix(name, "/"), c.commonKeys()})
		}
		return out
	case "autoscaling":
		return []access{{action, "*", c.commonKeys()}}
	case "iam":
		return []access{{action, roleARN(c.Resource), c.commonKeys()}}
	}
	return nil // sts:GetCallerIdentity requires no permission
}

// s3Actions are the actions of S3 that are not named like their operation.
var s3Actions = map[string]string{
	"CompleteMultipartUpload": "PutObject",
	"CreateMultipartUpload":   "PutObject",
	"HeadBucket":              "ListBucket",
	"HeadObject":              "GetObject",
	"ListBuckets":             "ListAllMyBuckets",
	"ListMultipartUploads":    "ListBucketMultipartUploads",
	"ListObjectsV2":           "ListBucket",
	"ListParts":               "ListMultipartUploadParts",
	"UploadPart":              "PutObject",
}

func (c *call) commonKeys() map[string][]string {
	return map[string][]string{"aws:RequestedRegion": {c.Region}, "aws:PrincipalAccount": {Account}}
}

// access returns an access to an EC2 resource, which may be new, as in
// "snap-*", with the given tags in the request. The caller holds s.mu.
func (c *call) access(action, id string, given tags) access {
	return c.accessIn(c.Region, action, id, given)
}

func (c *call) accessIn(region, action, id string, given tags) access {
	prefix, rest, _ := strings.Cut(id, "-")
	if prefix == "import" { // import-snap-…
		rest = strings.TrimPrefix(rest, "snap-")
	}
	kind, account := resourceTypes[prefix], Account
	if kind == "snapshot" || kind == "image" {
		account = ""
	}
	name := id
	if rest == "*" {
		name = "*"
	}
	a := access{action, "arn:aws:ec2:" + region + ":" + account + ":" + kind + "/" + name, c.commonKeys()}
	for _, t := range c.region(region).taggable()[id] {
		a.keys["aws:ResourceTag/"+t.Key] = []string{t.Value}
		a.keys["ec2:ResourceTag/"+t.Key] = []string{t.Value}
	}
	for _, t := range given {
		a.keys["aws:RequestTag/"+t.Key] = []string{t.Value}
		a.keys["aws:TagKeys"] = append(a.keys["aws:TagKeys"], t.Key)
	}
	return a
}

// ec2Creates are the types of the resources that an operation creates, by the
// start of their IDs.
var ec2Creates = map[string][]string{
	"CopyImage":                   {"ami"},
	"CopySnapshot":                {"snap"},
	"CreateReplaceRootVolumeTask": {"replacevol", "vol"},
	"ImportSnapshot":              {"import"},
	"RegisterImage":               {"ami"},
	"RunInstances":                {"i", "vol", "eni", "sg", "subnet"},
}

func (c *call) ec2Accesses() []access {
	action := "ec2:" + c.Operation
	if strings.HasPrefix(c.Operation, "Describe") || strings.HasPrefix(c.Operation, "List") || strings.HasPrefix(c.Operation, "Get") && c.Operation != "GetConsoleOutput" {
		return []access{{action, "*", c.commonKeys()}}
	}
	// A copy, so that the operation still finds parameters that it does not
	// know.
	f, _ := parseForm(c.body)
	tagging := f.tagsFor("image", "snapshot", "instance", "volume", "import-snapshot-task", "replace-root-volume-task")
	var out []access
	for _, prefix := range ec2Creates[c.Operation] {
		out = append(out, c.access(action, prefix+"-*", tagging[resourceTypes[prefix]]))
	}
	for prefix, kind := range resourceTypes { // tags on creation
		if given := tagging[kind]; given != nil {
			a := c.access("ec2:CreateTags", prefix+"-*", given)
			a.keys["ec2:CreateAction"] = []string{c.Operation}
			out = append(out, a)
		}
	}
	given := f.tags("Tag") // of CreateTags and DeleteTags
	ids := slices.Concat(f.list("ResourceId"), f.list("InstanceId"))
	for _, name := range []string{"ImageId", "SnapshotId", "InstanceId", "ImportTaskId"} {
		if id := f.string(name); id != "" {
			ids = append(ids, id)
		}
	}
	for _, m := range f.each("BlockDeviceMapping") {
		if id := m.at("Ebs").string("SnapshotId"); id != "" {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		out = append(out, c.access(action, id, given))
	}
	for _, name := range []string{"SourceImageId", "SourceSnapshotId"} {
		if id := f.string(name); id != "" {
			out = append(out, c.accessIn(f.string("SourceRegion"), action, id, nil))
		}
	}
	if im := c.region(c.Region).images[f.string("ImageId")]; im != nil && f.string("DeleteAssociatedSnapshots") == "true" {
		for _, m := range im.mappings {
			if m.Ebs != nil {
				out = append(out, c.access("ec2:DeleteSnapshot", m.Ebs.Snapshot, nil))
			}
		}
	}
	if c.Operation == "ImportSnapshot" {
		a := access{"iam:PassRole", roleARN(cmp.Or(f.string("RoleName"), "vmimport")), c.commonKeys()}
		a.keys["iam:PassedToService"] = []string{"vmie.amazonaws.com"}
		out = append(out, a)
	}
	return out
}

func roleARN(name string) string { return "arn:aws:iam::" + Account + ":role/" + name }
