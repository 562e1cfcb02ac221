package awstest

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A parameter is a parameter of SSM Parameter Store (protocol awsJson1.1).
type parameter struct {
	name, value, kind, dataType string
	version                     int64
	validated                   time.Time // of the data type aws:ec2:image
}

// parameters returns the parameters of the request's region. The value of a
// parameter of the data type aws:ec2:image is validated after the answer of
// PutParameter: if the image is not available then, the parameter keeps its
// value ("Using native parameter support in Parameter Store for Amazon Machine
// Image IDs" in the Systems Manager user guide). The caller holds s.mu.
func (c *call) parameters() map[string]*parameter {
	r := c.region(c.Region)
	r.unchecked = slices.DeleteFunc(r.unchecked, func(p *parameter) bool {
		if c.now().Before(p.validated) {
			return false
		}
		if im := r.images[p.value]; im != nil && im.stateAt(p.validated) == "available" {
			r.params[p.name] = p
		}
		return true
	})
	return r.params
}

func (p *parameter) json(region, name string) parameterJSON {
	return parameterJSON{
		"arn:aws:ssm:" + region + ":" + Account + ":parameter/" + strings.TrimPrefix(name, "/"), name, p.kind, p.value, p.dataType, p.version,
	}
}

type parameterJSON struct {
	ARN, Name, Type, Value, DataType string
	Version                          int64
}

const (
	json11    = "application/x-amz-json-1.1"
	imageType = "aws:ec2:image"
)

func ssmService() *service {
	return &service{
		route: func(c *call) error {
			target := c.http.Header.Get("X-Amz-Target")
			operation, ok := strings.CutPrefix(target, "AmazonSSM.")
			c.Operation = operation
			if svc := services["ssm"]; !ok || svc.operations[operation] == nil {
				return violation("UnknownOperationException", "awstest does not implement the target %q, only AmazonSSM. with %s", target, svc.names())
			}
			if v := c.http.Header.Get("Content-Type"); v != json11 {
				return violation("SerializationException", "Content-Type is %q, not %s", v, json11)
			}
			var in struct{ Name string }
			_ = json.Unmarshal(c.body, &in) // the operation reports errors
			c.Resource = in.Name
			return nil
		},
		bodyFirst: true, limit: 1 << 20,
		operations: map[string]func(*call) (any, error){
			"GetParameter":       (*call).getParameter,
			"GetParameters":      (*call).getParameters,
			"PutParameter":       (*call).putParameter,
			"DeleteParameter":    (*call).deleteParameter,
			"DescribeParameters": (*call).describeParameters,
		},
		encode: func(_ *call, v any) *answer { return encodeJSON(http.StatusOK, json11, v) },
		fail: func(_ *call, e *apiError) *answer {
			return encodeJSON(e.status, json11, map[string]string{"__type": e.code, "message": e.message})
		},
		throttle:    *newError("ThrottlingException", "rate exceeded"),
		internal:    *newError("InternalServerError", "the service failed").withStatus(http.StatusInternalServerError),
		denied:      *newError("AccessDeniedException", ""),
		credentials: *newError("UnrecognizedClientException", "the security token included in the request is invalid"),
		expired:     *newError("ExpiredTokenException", "the security token included in the request is expired"),
	}
}

var parameterName = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$|^[A-Za-z0-9._-]+$`)

func (c *call) putParameter() (any, error) {
	var in struct {
		Name, Value, Type, DataType, Description, Tier, KeyId, AllowedPattern, Policies string
		Overwrite                                                                       bool
		Tags                                                                            []tag
	}
	if err := decodeJSON(c.body, &in); err != nil {
		return nil, err
	}
	switch first, _, _ := strings.Cut(strings.ToLower(strings.TrimPrefix(in.Name, "/")), "/"); {
	case !parameterName.MatchString(in.Name) || len(in.Name) > 1011 || strings.Count(in.Name, "/") > 15:
		return nil, violation("ValidationException", "the parameter name %q is not valid", in.Name)
	case strings.HasPrefix(first, "aws") || strings.HasPrefix(first, "ssm"):
		return nil, violation("ValidationException", "the parameter name %q starts with a reserved word", in.Name)
	case in.Value == "" || len(in.Value) > 4096:
		return nil, violation("ValidationException", "the value has %d characters, not 1 to 4096", len(in.Value))
	case in.Type != "" && !slices.Contains([]string{"String", "StringList", "SecureString"}, in.Type):
		return nil, violation("UnsupportedParameterType", "type %q is not supported", in.Type)
	case !slices.Contains([]string{"", "text", imageType}, in.DataType):
		return nil, violation("ValidationException", "data type %q is not supported", in.DataType)
	case in.Overwrite && len(in.Tags) > 0:
		return nil, violation("ValidationException", "tags and overwrite can't be used together")
	}
	if _, err := newTags(in.Tags); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	params := c.parameters()
	old := params[in.Name]
	switch {
	case old != nil && !in.Overwrite:
		return nil, newError("ParameterAlreadyExists", "the parameter %s exists; to overwrite it, set overwrite", in.Name)
	case old == nil && in.Type == "":
		return nil, violation("ValidationException", "a new parameter requires a type")
	}
	p := &parameter{name: in.Name, value: in.Value, kind: in.Type, dataType: cmp.Or(in.DataType, "text"), version: 1}
	if old != nil {
		if p.dataType != old.dataType && (p.dataType == imageType || old.dataType == imageType) {
			// "Parameter data types in Parameter Store" in the user guide
			return nil, newError("ValidationException", "the data type of %s cannot be changed from %s to %s", in.Name, old.dataType, p.dataType)
		}
		p.version, p.kind = old.version+1, cmp.Or(p.kind, old.kind)
	}
	if p.dataType == imageType {
		r := c.region(c.Region)
		if r.images[p.value] == nil {
			c.violate("%s is not an image, so that %s will not change", p.value, p.name)
		}
		p.validated = c.now().Add(c.knobs.Settle)
		r.unchecked = append(r.unchecked, p)
	} else {
		params[in.Name] = p
	}
	return map[string]any{"Version": p.version, "Tier": "Standard"}, nil
}

func (c *call) getParameter() (any, error) {
	var in struct {
		Name           string
		WithDecryption *bool
	}
	if err := decodeJSON(c.body, &in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.parameters()[in.Name]
	if p == nil {
		return nil, newError("ParameterNotFound", "the parameter %s does not exist", in.Name)
	}
	return map[string]any{"Parameter": p.json(c.Region, in.Name)}, nil
}

func (c *call) getParameters() (any, error) {
	var in struct {
		Names          []string
		WithDecryption *bool
	}
	if err := decodeJSON(c.body, &in); err != nil {
		return nil, err
	}
	if len(in.Names) < 1 || len(in.Names) > 10 {
		return nil, violation("ValidationException", "GetParameters takes 1 to 10 names, not %d", len(in.Names))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	found, missing := []parameterJSON{}, []string{}
	for _, name := range in.Names {
		if p := c.parameters()[name]; p != nil {
			found = append(found, p.json(c.Region, name))
		} else {
			missing = append(missing, name)
		}
	}
	return map[string]any{"Parameters": found, "InvalidParameters": missing}, nil
}

// describeParameters returns what is known of the parameters but their values.
func (c *call) describeParameters() (any, error) {
	var in struct {
		MaxResults       int
		NextToken        string
		Shared           *bool
		ParameterFilters []struct {
			Key, Option string
			Values      []string
		}
	}
	if err := decodeJSON(c.body, &in); err != nil {
		return nil, err
	}
	if in.MaxResults < 0 || in.MaxResults > 50 {
		return nil, violation("ValidationException", "MaxResults %d is not 1 to 50", in.MaxResults)
	}
	for _, f := range in.ParameterFilters {
		if f.Key != "Type" && f.Key != "DataType" || f.Option != "" && f.Option != "Equals" {
			return nil, violation("InvalidFilterKey", "awstest does not implement the filter %s with the option %q", f.Key, f.Option)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type metadata struct{ Name, Type, DataType string }
	all, list := c.parameters(), []metadata{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		p := all[name]
		if name > in.NextToken && !slices.ContainsFunc(in.ParameterFilters, func(f struct {
			Key, Option string
			Values      []string
		}) bool {
			return !slices.Contains(f.Values, map[string]string{"Type": p.kind, "DataType": p.dataType}[f.Key])
		}) {
			list = append(list, metadata{name, p.kind, p.dataType})
		}
	}
	out := map[string]any{"Parameters": list}
	if most := cmp.Or(in.MaxResults, 50); len(list) > most {
		out["Parameters"], out["NextToken"] = list[:most], list[most-1].Name
	}
	return out, nil
}

func (c *call) deleteParameter() (any, error) {
	var in struct{ Name string }
	if err := decodeJSON(c.body, &in); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	params := c.parameters()
	if params[in.Name] == nil {
		return nil, newError("ParameterNotFound", "the parameter %s does not exist", in.Name)
	}
	delete(params, in.Name)
	return struct{}{}, nil
}
