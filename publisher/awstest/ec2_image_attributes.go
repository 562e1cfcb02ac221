package awstest

import (
	"cmp"
	"slices"
	"time"
)

// value reads an attribute from NAME.Value, or from Value if Attribute names
// it, and reports whether it is there.
func (f *form) value(name, attribute string) (string, bool) {
	if f.has(name + ".Value") {
		return f.string(name + ".Value"), true
	}
	if f.values.Get("Attribute") == attribute && f.has("Value") {
		return f.string("Value"), true
	}
	return "", false
}

func (c *call) modifyImageAttribute() (any, error) {
	f := c.form
	switch f.oneOf("Attribute", "description", "imdsSupport", "launchPermission") {
	case "description", "imdsSupport":
	default:
		if f.string("Value") != "" {
			f.fail(violation("InvalidParameterCombination", "Value needs the attribute description or imdsSupport"))
		}
	}
	description, describe := f.value("Description", "description")
	if describe {
		f.checkDescription("Description", description)
	}
	imds, restrict := f.value("ImdsSupport", "imdsSupport")
	if restrict && imds != "v2.0" {
		f.fail(violation("InvalidParameterValue", "ImdsSupport is %q, not v2.0", imds))
	}
	add, remove := f.permissions("LaunchPermission", "Group", "UserId", "OrganizationArn", "OrganizationalUnitArn")
	return c.onImage(func(im *image) (any, error) {
		if slices.Contains(add, "all") {
			if c.knobs.BlockPublicAccess {
				return nil, newError("OperationNotPermitted", "AMIs cannot be shared publicly: block public access is enabled")
			}
			for _, m := range im.mappings {
				if m.Ebs != nil && m.Ebs.Encrypted {
					return nil, violation("InvalidParameter", "the image %s has an encrypted snapshot and cannot be shared publicly", im.id)
				}
			}
		}
		for _, m := range im.mappings {
			if len(add) > 0 && m.Ebs != nil && m.Ebs.Encrypted && m.Ebs.Key == keyARN(c.Region, "") {
				// "Share an AMI with specific AWS accounts" in the EC2 user
				// guide
				return nil, newError("InvalidParameter", "the image %s is encrypted with the default key and cannot be shared", im.id)
			}
		}
		if len(add) > 0 && im.stateAt(c.now()) == "disabled" {
			return nil, newError("OperationNotPermitted", "the image %s is disabled and cannot be shared", im.id)
		}
		share(im.shared, add, remove)
		if describe {
			im.description = description
		}
		if restrict {
			im.imds = imds
		}
		return yes, nil
	})
}

func (c *call) describeImageAttribute() (any, error) {
	attribute := c.form.oneOf("Attribute", "launchPermission", "description", "bootMode", "tpmSupport", "uefiData", "imdsSupport",
		"sriovNetSupport", "deregistrationProtection", "blockDeviceMapping")
	if attribute == "" {
		c.form.required("Attribute")
	}
	return c.onImage(func(im *image) (any, error) {
		type value struct {
			Value string `xml:"value,omitempty"`
		}
		var v any
		switch attribute {
		case "launchPermission":
			v = permissionsXML(im.shared)
		case "blockDeviceMapping":
			v = items[mapping]{im.mappings}
		default:
			v = value{map[string]string{
				"description": im.description, "bootMode": im.boot, "tpmSupport": im.tpm, "uefiData": im.uefi, "imdsSupport": im.imds,
				"sriovNetSupport": im.sriov, "deregistrationProtection": cmp.Or(im.protection, "disabled"),
			}[attribute]}
		}
		return members{{"imageId", im.id}, {attribute, v}}, nil
	})
}

func (c *call) enableImageDeprecation() (any, error) {
	text := c.form.required("DeprecateAt")
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		c.form.fail(violation("InvalidParameterValue", "DeprecateAt: %v", err))
	}
	return c.onImage(func(im *image) (any, error) {
		years := 10
		if im.shared["all"] {
			years = 2
		}
		if now := c.now(); at.Before(now) || at.After(now.AddDate(years, 0, 0)) {
			return nil, violation("InvalidParameterValue", "DeprecateAt %s is not within %d years from now", text, years)
		}
		im.deprecated = at.Round(time.Minute)
		return yes, nil
	})
}

// onImage ends the reading of parameters and calls operation with the request's
// image, while it holds s.mu.
func (c *call) onImage(operation func(*image) (any, error)) (any, error) {
	id := c.form.required("ImageId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	im, err := c.image(id)
	if err != nil {
		return nil, err
	}
	return operation(im)
}

// change is an operation on an image that always succeeds.
func (c *call) change(apply func(*image)) (any, error) {
	return c.onImage(func(im *image) (any, error) {
		apply(im)
		return yes, nil
	})
}

func (c *call) disableImageDeprecation() (any, error) {
	return c.change(func(im *image) { im.deprecated = time.Time{} })
}

// disableImage implements "Disable an Amazon EC2 AMI" in the EC2 user guide:
// the image is hidden, loses its launch permissions and keeps its name.
func (c *call) disableImage() (any, error) {
	return c.setState("available", "disabled")
}

func (c *call) enableImage() (any, error) {
	return c.setState("disabled", "available")
}

// setState changes the state of an image. Nothing happens if it has that state.
func (c *call) setState(from, to string) (any, error) {
	return c.onImage(func(im *image) (any, error) {
		if state := im.stateAt(c.now()); state != from && state != to {
			return nil, newError("IncorrectState", "the image %s is %s", im.id, state)
		}
		im.state = to
		if to == "disabled" {
			clear(im.shared)
		}
		return yes, nil
	})
}

func (c *call) enableProtection() (any, error) {
	state := "enabled-without-cooldown"
	if c.form.bool("WithCooldown") {
		state = "enabled-with-cooldown"
	}
	return c.change(func(im *image) { im.protection = state })
}

// disableProtection implements DisableImageDeregistrationProtection. With a
// cooldown, the image stays protected for 24 hours ("Protect an AMI from
// deregistration" in the EC2 user guide).
func (c *call) disableProtection() (any, error) {
	return c.change(func(im *image) {
		if im.protection == "enabled-with-cooldown" {
			im.cooldown = c.now().Add(24 * time.Hour)
		}
		im.protection = ""
	})
}
