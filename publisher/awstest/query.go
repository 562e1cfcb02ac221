package awstest

import (
	"encoding/xml"
	"net/http"
)

const (
	stsVersion = "2011-06-15"
	iamVersion = "2010-05-08"

	autoscalingVersion = "2011-01-01"
)

// routeQuery returns a function that finds the operation by the parameter
// Action. The resource is the first ID or name among the parameters.
func routeQuery(version string) func(*call) error {
	return func(c *call) error {
		var err error
		if c.form, err = parseForm(c.body); err != nil {
			return err
		}
		c.Operation = c.form.required("Action")
		for _, name := range []string{
			"InstanceId", "InstanceId.1", "LaunchTemplateId", "LaunchTemplateName", "ReplaceRootVolumeTaskId.1", "VolumeId", "VolumeId.1", "SnapshotId", "SnapshotId.1", "ImageId", "ImageId.1", "ResourceId.1", "ImportTaskId", "ImportTaskId.1",
			"SourceImageId", "SourceSnapshotId", "RoleName", "Name", "DiskContainer.UserBucket.S3Key",
		} {
			if c.Resource = c.form.values.Get(name); c.Resource != "" {
				break
			}
		}
		if v := c.form.required("Version"); v != version {
			c.form.fail(violation("NoSuchVersion", "version %q is not %s", v, version))
		}
		svc := services[c.Service]
		if svc.operations[c.Operation] == nil {
			return violation("InvalidAction", "awstest does not implement %s:%s, only %s", c.Service, c.Operation, svc.names())
		}
		return nil
	}
}

// queryService returns a service with the protocol awsQuery.
func queryService(version string, operations map[string]func(*call) (any, error)) *service {
	space := map[string]string{
		stsVersion: "https://sts.amazonaws.com/doc/2011-06-15/", iamVersion: "https://iam.amazonaws.com/doc/2010-05-08/",
		autoscalingVersion: "http://autoscaling.amazonaws.com/doc/2011-01-01/",
	}[version]
	return &service{
		route:      routeQuery(version),
		bodyFirst:  true,
		limit:      1 << 20,
		operations: operations,
		encode: func(c *call, v any) *answer {
			return encodeXML(http.StatusOK, wrapped{xml.Name{Space: space, Local: c.Operation + "Response"}, c.Operation + "Result", v})
		},
		fail: func(_ *call, e *apiError) *answer {
			type one struct{ Type, Code, Message string }
			return encodeXML(e.status, struct {
				XMLName   xml.Name `xml:"ErrorResponse"`
				Error     one
				RequestID string `xml:"RequestId"`
			}{Error: one{"Sender", e.code, e.message}, RequestID: requestID})
		},
		throttle:    *newError("Throttling", "rate exceeded"),
		internal:    *newError("ServiceFailure", "the service failed").withStatus(http.StatusInternalServerError),
		denied:      *newError("AccessDenied", "").withStatus(http.StatusForbidden),
		credentials: *newError("InvalidClientTokenId", "the security token included in the request is invalid").withStatus(http.StatusForbidden),
		expired:     *newError("ExpiredToken", "the security token included in the request is expired").withStatus(http.StatusForbidden),
	}
}

// wrapped is an answer in the elements OPERATIONResponse and OPERATIONResult.
type wrapped struct {
	name   xml.Name
	result string
	value  any
}

// MarshalXML implements [xml.Marshaler].
func (w wrapped) MarshalXML(e *xml.Encoder, _ xml.StartElement) error {
	start := xml.StartElement{Name: w.name}
	if err := e.EncodeToken(start); err != nil {
		return err
	}
	if err := e.EncodeElement(w.value, xml.StartElement{Name: xml.Name{Local: w.result}}); err != nil {
		return err
	}
	type metadata struct {
		RequestID string `xml:"RequestId"`
	}
	if err := e.EncodeElement(metadata{requestID}, xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}}); err != nil {
		return err
	}
	return e.EncodeToken(start.End())
}
