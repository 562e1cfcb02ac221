package awstest

import (
	"encoding/xml"
	"net/http"
	"time"
)

// EC2: the model of github.com/aws/aws-sdk-go-v2/service/ec2, version
// 2016-11-15, protocol ec2Query. This file has the protocol; the ec2_ files
// have the operations.

const ec2Version = "2016-11-15"

func ec2Service() *service {
	return &service{
		route:     routeQuery(ec2Version),
		bodyFirst: true, limit: 1 << 20,
		operations: map[string]func(*call) (any, error){
			"CancelImportTask":                     (*call).cancelImportTask,
			"CancelSpotFleetRequests":              (*call).cancelSpotFleets,
			"CancelSpotInstanceRequests":           (*call).cancelSpotRequests,
			"CopyImage":                            (*call).copyImage,
			"CopySnapshot":                         (*call).copySnapshot,
			"CreateLaunchTemplate":                 (*call).createLaunchTemplate,
			"CreateLaunchTemplateVersion":          (*call).createLaunchTemplateVersion,
			"CreateReplaceRootVolumeTask":          (*call).createReplaceTask,
			"CreateTags":                           (*call).createTags,
			"DeleteSnapshot":                       (*call).deleteSnapshot,
			"DeleteTags":                           (*call).deleteTags,
			"DeleteVolume":                         (*call).deleteVolume,
			"DeregisterImage":                      (*call).deregisterImage,
			"DescribeImageAttribute":               (*call).describeImageAttribute,
			"DescribeImages":                       (*call).describeImages,
			"DescribeImportSnapshotTasks":          (*call).describeImportTasks,
			"DescribeRegions":                      (*call).describeRegions,
			"DescribeInstanceStatus":               (*call).describeInstanceStatus,
			"DescribeLaunchTemplates":              (*call).describeLaunchTemplates,
			"DescribeLaunchTemplateVersions":       (*call).describeLaunchTemplateVersions,
			"DescribeInstances":                    (*call).describeInstances,
			"DescribeReplaceRootVolumeTasks":       (*call).describeReplaceTasks,
			"DescribeSpotFleetRequests":            (*call).describeSpotFleets,
			"DescribeSpotInstanceRequests":         (*call).describeSpotRequests,
			"DescribeTags":                         (*call).describeTags,
			"DescribeVolumes":                      (*call).describeVolumes,
			"DisableImage":                         (*call).disableImage,
			"EnableImage":                          (*call).enableImage,
			"GetConsoleOutput":                     (*call).getConsoleOutput,
			"ListImagesInRecycleBin":               (*call).listImagesInBin,
			"ListSnapshotsInRecycleBin":            (*call).listSnapshotsInBin,
			"LockSnapshot":                         (*call).lockSnapshot,
			"ModifySnapshotTier":                   (*call).archiveSnapshot,
			"RequestSpotFleet":                     (*call).requestSpotFleet,
			"RequestSpotInstances":                 (*call).requestSpotInstances,
			"RestoreImageFromRecycleBin":           (*call).restoreImageFromBin,
			"RestoreSnapshotFromRecycleBin":        (*call).restoreSnapshotFromBin,
			"RestoreSnapshotTier":                  (*call).restoreSnapshot,
			"RunInstances":                         (*call).runInstances,
			"TerminateInstances":                   (*call).terminateInstances,
			"UnlockSnapshot":                       (*call).unlockSnapshot,
			"DescribeSnapshotAttribute":            (*call).describeSnapshotAttribute,
			"DescribeSnapshots":                    (*call).describeSnapshots,
			"DisableImageDeprecation":              (*call).disableImageDeprecation,
			"DisableImageDeregistrationProtection": (*call).disableProtection,
			"EnableImageDeprecation":               (*call).enableImageDeprecation,
			"EnableImageDeregistrationProtection":  (*call).enableProtection,
			"GetEbsDefaultKmsKeyId":                (*call).getDefaultKey,
			"GetEbsEncryptionByDefault":            (*call).getEncryptionByDefault,
			"GetImageBlockPublicAccessState":       (*call).getImageBlockPublicAccess,
			"GetInstanceUefiData":                  (*call).getInstanceUEFIData,
			"GetSnapshotBlockPublicAccessState":    (*call).getSnapshotBlockPublicAccess,
			"ImportSnapshot":                       (*call).importSnapshot,
			"ModifyImageAttribute":                 (*call).modifyImageAttribute,
			"ModifySnapshotAttribute":              (*call).modifySnapshotAttribute,
			"RegisterImage":                        (*call).registerImage,
		},
		encode: func(c *call, v any) *answer {
			a := encodeXML(http.StatusOK, response{
				XMLName: xml.Name{Space: "http://ec2.amazonaws.com/doc/" + ec2Version + "/", Local: c.Operation + "Response"},
				ID:      requestID,
				Inner:   v,
			})
			return a
		},
		fail: func(_ *call, e *apiError) *answer {
			type one struct{ Code, Message string }
			return encodeXML(e.status, struct {
				XMLName   xml.Name `xml:"Response"`
				Error     one      `xml:"Errors>Error"`
				RequestID string
			}{Error: one{e.code, e.message}, RequestID: requestID})
		},
		throttle:    *newError("RequestLimitExceeded", "request limit exceeded").withStatus(http.StatusServiceUnavailable),
		internal:    *newError("InternalError", "an internal error has occurred").withStatus(http.StatusInternalServerError),
		denied:      *newError("UnauthorizedOperation", "").withStatus(http.StatusForbidden),
		credentials: *newError("AuthFailure", "AWS was not able to validate the provided access credentials").withStatus(http.StatusUnauthorized),
		expired:     *newError("RequestExpired", "request has expired"),
	}
}

// A response is the outer element of an answer.
type response struct {
	XMLName xml.Name
	ID      string `xml:"requestId"`
	Inner   any
}

// MarshalXML implements [xml.Marshaler]. It puts the members of Inner next to
// the request ID.
func (r response) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	start := xml.StartElement{Name: r.XMLName}
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	if err := e.EncodeElement(r.ID, xml.StartElement{Name: xml.Name{Local: "requestId"}}); err != nil {
		return err
	}
	if m, ok := r.Inner.(members); ok {
		for _, one := range m {
			if err := e.EncodeElement(one.value, xml.StartElement{Name: xml.Name{Local: one.name}}); err != nil {
				return err
			}
		}
	}
	return e.EncodeToken(start.End())
}

// members are the elements of an answer, in order.
type members []member

type member struct {
	name  string
	value any
}

// items is a list in the XML of EC2.
type items[T any] struct {
	Item []T `xml:"item"`
}

var yes = members{{"return", true}}

// ready ends a request after all parameters have been read: it returns an error
// if one is invalid or unknown, or if the request is a dry run.
func (c *call) ready() error {
	dry := c.form.bool("DryRun")
	if err := c.form.done(); err != nil {
		return err
	}
	if dry {
		return newError("DryRunOperation", "request would have succeeded, but DryRun flag is set").withStatus(http.StatusPreconditionFailed)
	}
	return nil
}

// flaps reports whether this Describe request returns an inconsistent view of
// new objects; see [Knobs.Flap]. The caller holds s.mu.
func (c *call) flaps() bool {
	r := c.region(c.Region)
	r.describes++
	return c.knobs.Flap > 0 && r.describes%3 == 0
}

func (c *call) young(made time.Time) bool { return c.now().Sub(made) < c.knobs.Flap }

// isoTime formats a time as EC2 and S3 do.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// repeated returns what an earlier EC2 request with the same client token
// created, and the request's parameters for region.remember. The caller holds
// s.mu.
func (c *call) repeated(token string) (id, parameters string, err error) {
	parameters = c.form.parameters("DryRun")
	id, mismatch := c.region(c.Region).once(c.Operation, token, parameters)
	if mismatch {
		err = violation("IdempotentParameterMismatch", "the client token %q was used with different parameters", token)
	}
	return id, parameters, err
}
