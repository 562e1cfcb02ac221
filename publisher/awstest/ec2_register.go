package awstest

import (
	"cmp"
	"regexp"
	"strings"
	"unicode"
)

// imageName matches the valid names of images.
var imageName = regexp.MustCompile(`^[A-Za-z0-9()\[\] ./'@_-]{3,128}$`)

func (f *form) mapping() mapping {
	m := mapping{Device: f.required("DeviceName"), Virtual: f.string("VirtualName"), None: f.string("NoDevice")}
	if !f.has("Ebs") {
		return m
	}
	e := f.at("Ebs")
	if e.has("Encrypted") && e.has("SnapshotId") {
		f.fail(violation("InvalidBlockDeviceMapping", "the encrypted flag cannot be specified since device %s has a snapshot specified", m.Device))
	}
	m.Ebs = &ebs{
		Snapshot:   e.string("SnapshotId"),
		Size:       e.int("VolumeSize", 1, 65536),
		Type:       cmp.Or(e.oneOf("VolumeType", "standard", "gp2", "gp3", "io1", "io2", "st1", "sc1"), "standard"),
		Iops:       e.int("Iops", 1, 1<<31-1),
		Throughput: e.int("Throughput", 1, 1<<31-1),
		Delete:     !e.has("DeleteOnTermination") || e.bool("DeleteOnTermination"),
		Encrypted:  e.bool("Encrypted"),
		Key:        e.string("KmsKeyId"),
	}
	if m.Ebs.Snapshot == "" && m.Ebs.Size == 0 {
		f.fail(violation("MissingParameter", "device %s requires a snapshot or a size", m.Device))
	}
	return m
}

// description returns a parameter of at most 255 ASCII characters, which is
// what EC2 accepts in descriptions.
func (f *form) description(name string) string {
	v := f.string(name)
	f.checkDescription(name, v)
	return v
}

func (f *form) checkDescription(name, v string) {
	if len(v) > 255 || strings.ContainsFunc(v, func(r rune) bool { return r > unicode.MaxASCII }) {
		f.fail(violation("InvalidParameterValue", "value (%s) for parameter %s%s is invalid: it must have at most 255 ASCII characters", v, f.prefix, name))
	}
}

func (c *call) registerImage() (any, error) {
	f := c.form
	im := &image{
		name:           f.required("Name"),
		description:    f.description("Description"),
		architecture:   cmp.Or(f.oneOf("Architecture", "i386", "x86_64", "arm64", "x86_64_mac", "arm64_mac"), "i386"),
		boot:           f.oneOf("BootMode", "legacy-bios", "uefi", "uefi-preferred"),
		tpm:            f.oneOf("TpmSupport", "v2.0"),
		root:           f.required("RootDeviceName"),
		virtualization: cmp.Or(f.oneOf("VirtualizationType", "hvm", "paravirtual"), "paravirtual"),
		ena:            f.bool("EnaSupport"),
		sriov:          f.oneOf("SriovNetSupport", "simple"),
		imds:           f.oneOf("ImdsSupport", "v2.0"),
		uefi:           f.base64("UefiData"),
		tags:           f.tagsFor("image")["image"],
	}
	for _, m := range f.each("BlockDeviceMapping") {
		im.mappings = append(im.mappings, m.mapping())
	}
	f.fail(im.check())
	if err := c.ready(); err != nil {
		return nil, err
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range im.mappings {
		if m.Ebs == nil || m.Ebs.Snapshot == "" {
			continue
		}
		p, err := c.ec2Snapshot(m.Ebs.Snapshot)
		if err != nil {
			return nil, err
		}
		if state := p.state(c.now()); state != "completed" {
			return nil, violation("IncorrectState", "the snapshot '%s' is %s, not completed", p.id, state)
		}
		if p.tier(c.now()) == "archive" {
			return nil, newError("IncorrectState", "the snapshot '%s' is archived", p.id)
		}
		if m.Ebs.Size != 0 && m.Ebs.Size < p.size {
			return nil, violation("InvalidBlockDeviceMapping", "the volume of %d GiB is smaller than snapshot '%s' of %d", m.Ebs.Size, p.id, p.size)
		}
		im.mappings[i].Ebs.Size = max(m.Ebs.Size, p.size)
		if err := im.mappings[i].Ebs.check(m.Device == im.root); err != nil {
			return nil, err
		}
		im.mappings[i].Ebs.Encrypted, im.mappings[i].Ebs.Key = p.encrypted, p.kmsKey
	}
	if err := c.addImage(im); err != nil {
		return nil, err
	}
	return members{{"imageId", im.id}}, nil
}

// check rejects images that EC2 rejects, and those that current instance types
// do not boot.
func (im *image) check() error {
	invalid := func(format string, args ...any) error {
		return violation("InvalidParameterCombination", format, args...)
	}
	arm := strings.HasPrefix(im.architecture, "arm64")
	switch {
	case !imageName.MatchString(im.name):
		return violation("InvalidAMIName.Malformed", "AMI names have 3 to 128 letters, digits, or ()[] ./-'@_: %q", im.name)
	case im.virtualization != "hvm":
		return invalid("virtualization type paravirtual, the default, boots only on the oldest instance types")
	case im.architecture == "i386":
		return invalid("architecture i386, the default, boots only on the oldest instance types")
	case arm && im.boot != "" && im.boot != "uefi":
		return invalid("boot mode %s is not supported for architecture %s", im.boot, im.architecture)
	case im.tpm != "" && im.boot != "uefi":
		return invalid("TpmSupport %s requires boot mode uefi, not %q", im.tpm, im.boot)
	case im.uefi != "" && im.boot != "uefi" && im.boot != "uefi-preferred":
		return invalid("UefiData requires boot mode uefi or uefi-preferred, not %q", im.boot)
	}
	root := 0
	seen := map[string]bool{}
	for _, m := range im.mappings {
		if seen[m.Device] {
			return violation("InvalidBlockDeviceMapping", "device %s is mapped twice", m.Device)
		}
		seen[m.Device] = true
		if m.Device == im.root && m.Ebs != nil && m.Ebs.Snapshot != "" {
			root++
		}
	}
	if root != 1 {
		return violation("InvalidBlockDeviceMapping", "the root device %s is not mapped to a snapshot", im.root)
	}
	return nil
}
