package awstest

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// EC2: the model of github.com/aws/aws-sdk-go-v2/service/ec2, version 2016-11-15, protocol ec2Query. This file has what
// is common to its resources, and its snapshots; images.go and imports.go have the others.

const ec2Version = "2016-11-15"

func ec2Service() *service {
	return &service{
		route: routeQuery(ec2Version),
		limit: 1 << 20,
		operations: map[string]func(*call) (any, error){
			"CancelImportTask":                     (*call).cancelImportTask,
			"CopyImage":                            (*call).copyImage,
			"CopySnapshot":                         (*call).copySnapshot,
			"CreateTags":                           (*call).createTags,
			"DeleteSnapshot":                       (*call).deleteSnapshot,
			"DeleteTags":                           (*call).deleteTags,
			"DeregisterImage":                      (*call).deregisterImage,
			"DescribeImageAttribute":               (*call).describeImageAttribute,
			"DescribeImages":                       (*call).describeImages,
			"DescribeImportSnapshotTasks":          (*call).describeImportTasks,
			"DescribeRegions":                      (*call).describeRegions,
			"DescribeSnapshotAttribute":            (*call).describeSnapshotAttribute,
			"DescribeSnapshots":                    (*call).describeSnapshots,
			"DisableImageDeprecation":              (*call).disableImageDeprecation,
			"DisableImageDeregistrationProtection": (*call).disableProtection,
			"EnableImageDeprecation":               (*call).enableImageDeprecation,
			"EnableImageDeregistrationProtection":  (*call).enableProtection,
			"GetEbsDefaultKmsKeyId":                (*call).getDefaultKey,
			"GetEbsEncryptionByDefault":            (*call).getEncryptionByDefault,
			"GetImageBlockPublicAccessState":       (*call).getImageBlockPublicAccess,
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
	}
}

// response wraps the members of an answer.
type response struct {
	XMLName xml.Name
	ID      string `xml:"requestId"`
	Inner   any
}

// MarshalXML puts the members of Inner beside the request's id.
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

// members are the parts of an answer, in order.
type members []member

type member struct {
	name  string
	value any
}

// items is a list, or its page, in EC2's XML.
type items[T any] struct {
	Item []T `xml:"item"`
}

var yes = members{{"return", true}}

// routeQuery goes by the Action parameter. The resource is the first id or name among the parameters.
func routeQuery(version string) func(*call) error {
	return func(c *call) error {
		var err error
		if c.form, err = parseForm(c.body); err != nil {
			return err
		}
		c.Operation = c.form.required("Action")
		for _, name := range []string{
			"SnapshotId", "SnapshotId.1", "ImageId", "ImageId.1", "ResourceId.1", "ImportTaskId", "ImportTaskId.1",
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
			return violation("InvalidAction", "awstest has no %s:%s, only %s", c.Service, c.Operation, svc.names())
		}
		return nil
	}
}

// ready is called when all parameters are read: it ends the request if one is wrong or unknown, or if it was a dry run.
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

// tagsFor reads TagSpecification.N, which may only name some types of resources.
func (f *form) tagsFor(types ...string) map[string]tags {
	out := map[string]tags{}
	for _, spec := range f.each("TagSpecification") {
		kind := spec.oneOf("ResourceType", types...)
		if kind == "" || out[kind] != nil {
			f.fail(violation("InvalidParameterValue", "%sResourceType is missing or there twice", spec.prefix))
		}
		out[kind] = spec.tags("Tag")
	}
	return out
}

func (f *form) tags(name string) tags {
	var list []tag
	for _, t := range f.each(name) {
		list = append(list, tag{t.string("Key"), t.string("Value")})
	}
	checked, err := newTags(list)
	if err != nil {
		f.fail(err)
	}
	return checked
}

// filters are the conditions of a Describe: all of them must hold, each for one of its values.
type filters []filter

type filter struct {
	name   string
	values []string
}

// filters reads NAME.N, which may only use some names. "tag:" stands for all that start with it.
func (f *form) filters(name string, known ...string) filters {
	var out filters
	for _, one := range f.each(name) {
		key, values := one.required("Name"), one.list("Value")
		if !slices.Contains(known, key) && (!strings.HasPrefix(key, "tag:") || !slices.Contains(known, "tag:")) {
			f.fail(violation("InvalidParameterValue", "the filter '%s' is invalid", key))
		}
		if len(values) == 0 || len(values) > 200 {
			f.fail(violation("InvalidParameterValue", "the filter '%s' has %d values, not 1 to 200", key, len(values)))
		}
		out = append(out, filter{key, values})
	}
	return out
}

// match says whether an object with these attributes passes; * and ? in a filter's values are wildcards.
func (fs filters) match(attributes map[string]string, t tags) bool {
	for _, f := range fs {
		var have []string
		switch key, ok := strings.CutPrefix(f.name, "tag:"); {
		case ok:
			if v, there := t.plain()[key]; there {
				have = []string{v}
			}
		case f.name == "tag-key":
			have = slices.Collect(maps.Keys(t.plain()))
		default:
			have = []string{attributes[f.name]}
		}
		if !slices.ContainsFunc(f.values, func(pattern string) bool {
			return slices.ContainsFunc(have, func(v string) bool { return wildcard(pattern, v) })
		}) {
			return false
		}
	}
	return true
}

// wildcard matches as EC2's filters do: [ is a plain character, and * passes slashes.
func wildcard(pattern, text string) bool {
	clean := strings.NewReplacer("[", `\[`, "/", "\x00")
	ok, err := path.Match(clean.Replace(pattern), strings.ReplaceAll(text, "/", "\x00"))
	return err == nil && ok
}

// slicer holds MaxResults and NextToken.
type slicer struct {
	max   int64
	token string
}

// slicer reads them; low is the smallest page that the operation allows.
func (f *form) slicer(low int64) slicer {
	return slicer{f.int("MaxResults", low, 1000), f.string("NextToken")}
}

// paged answers with a page of a list, in the element of that name, and with the token of the next.
func paged[T any](s slicer, c *call, element string, list []T) (any, error) {
	from := 0
	if s.token != "" {
		number, ok := strings.CutPrefix(s.token, c.Operation+"-")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n > len(list) {
			return nil, violation("InvalidParameterValue", "NextToken is not of %s", c.Operation)
		}
		from = n
	}
	list = list[from:]
	if s.max == 0 || int64(len(list)) <= s.max {
		return members{{element, items[T]{list}}}, nil
	}
	next := fmt.Sprintf("%s-%d", c.Operation, from+int(s.max))
	return members{{element, items[T]{list[:s.max]}}, {"nextToken", next}}, nil
}

// flaps says whether a Describe should err about an object of this age. The caller holds s.mu.
func (c *call) flaps() bool {
	r := c.region(c.Region)
	r.describes++
	return c.knobs.Flap > 0 && r.describes%3 == 0
}

func (c *call) young(made time.Time) bool { return c.now().Sub(made) < c.knobs.Flap }

// isoTime is how EC2 writes a time.
func isoTime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// snapshotXML is EC2's view of a snapshot.
type snapshotXML struct {
	ID          string     `xml:"snapshotId"`
	Volume      string     `xml:"volumeId"`
	State       string     `xml:"status"`
	Message     string     `xml:"statusMessage,omitempty"`
	Started     string     `xml:"startTime"`
	Completed   string     `xml:"completionTime,omitempty"`
	Progress    string     `xml:"progress"`
	Owner       string     `xml:"ownerId"`
	Size        int64      `xml:"volumeSize"`
	Description string     `xml:"description"`
	Encrypted   bool       `xml:"encrypted"`
	Key         string     `xml:"kmsKeyId,omitempty"`
	Tier        string     `xml:"storageTier"`
	Bytes       int64      `xml:"fullSnapshotSizeInBytes"`
	Tags        items[tag] `xml:"tagSet"`
}

func (p *snapshot) xml(now time.Time) snapshotXML {
	x := snapshotXML{
		ID: p.id, Volume: "vol-ffffffff", State: p.state(now), Message: p.failed, Started: isoTime(p.started),
		Progress: p.progress(now), Owner: Account, Size: p.size, Description: p.description, Encrypted: p.encrypted, Key: p.kmsKey,
		Tier: "standard", Bytes: int64(len(p.blocks)) * BlockSize, Tags: items[tag]{p.tags},
	}
	if x.State == "completed" {
		x.Completed = isoTime(p.completed)
	}
	return x
}

// ec2Snapshot returns a snapshot that the client may know of. The caller holds s.mu.
func (c *call) ec2Snapshot(id string) (*snapshot, error) {
	if !strings.HasPrefix(id, "snap-") {
		return nil, violation("InvalidSnapshotID.Malformed", "invalid id: \"%s\" (expecting \"snap-...\")", id)
	}
	p := c.region(c.Region).snapshots[id]
	if p == nil || c.now().Sub(p.started) < c.knobs.Grace {
		return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' does not exist", id)
	}
	return p, nil
}

// mine checks the owners that a Describe asks for: the account itself, or nothing of it is found.
func mine(owners []string) bool {
	return len(owners) == 0 || slices.Contains(owners, "self") || slices.Contains(owners, Account)
}

func (c *call) describeSnapshots() (any, error) {
	ids, owners := c.form.list("SnapshotId"), c.form.list("Owner")
	restorable := c.form.list("RestorableBy")
	fs := c.form.filters("Filter", "description", "encrypted", "owner-id", "progress", "snapshot-id", "start-time", "status",
		"storage-tier", "tag-key", "tag:", "volume-id", "volume-size")
	pages := c.form.slicer(5)
	if len(ids) > 0 && pages.max > 0 {
		c.form.fail(violation("InvalidParameterCombination", "SnapshotId and MaxResults cannot be used together"))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r, flaps := c.region(c.Region), c.flaps()
	var found []*snapshot
	for _, id := range ids {
		p, err := c.ec2Snapshot(id)
		if err != nil {
			return nil, err
		}
		if flaps && c.young(p.started) && p.state(c.now()) != "completed" {
			return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' does not exist", id)
		}
		found = append(found, p)
	}
	if len(ids) == 0 {
		for _, id := range slices.Sorted(maps.Keys(r.snapshots)) {
			if p, err := c.ec2Snapshot(id); err == nil && (!flaps || !c.young(p.started)) {
				found = append(found, p)
			}
		}
	}
	var list []snapshotXML
	for _, p := range found {
		x := p.xml(c.now())
		if flaps && c.young(p.started) && x.State == "completed" {
			x.State, x.Progress, x.Completed = "pending", "99%", ""
		}
		if mine(owners) && mine(restorable) && fs.match(map[string]string{
			"description": x.Description, "encrypted": strconv.FormatBool(x.Encrypted), "owner-id": x.Owner, "progress": x.Progress,
			"snapshot-id": x.ID, "start-time": x.Started, "status": x.State, "storage-tier": x.Tier, "volume-id": x.Volume,
			"volume-size": strconv.FormatInt(x.Size, 10),
		}, p.tags) {
			list = append(list, x)
		}
	}
	return paged(pages, c, "snapshotSet", list)
}

func (c *call) deleteSnapshot() (any, error) {
	id := c.form.required("SnapshotId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	p, err := c.ec2Snapshot(id)
	if err != nil {
		return nil, err
	}
	if users := r.users(id); len(users) > 0 {
		return nil, newError("InvalidSnapshot.InUse", "the snapshot %s is currently in use by %s", id, strings.Join(users, ", "))
	}
	c.drop(r, p)
	return yes, nil
}

// users are the images that use a snapshot. The caller holds s.mu.
func (r *region) users(id string) []string {
	var users []string
	for _, name := range slices.Sorted(maps.Keys(r.images)) {
		if slices.ContainsFunc(r.images[name].mappings, func(m mapping) bool { return m.Ebs != nil && m.Ebs.Snapshot == id }) {
			users = append(users, name)
		}
	}
	return users
}

func (c *call) copySnapshot() (any, error) {
	f := c.form
	source, from := f.required("SourceSnapshotId"), f.required("SourceRegion")
	description, key, encrypted := f.string("Description"), f.string("KmsKeyId"), f.bool("Encrypted")
	f.string("PresignedUrl") // only needed between partitions and for encrypted snapshots
	if to := f.string("DestinationRegion"); to != "" && to != c.Region {
		f.fail(violation("InvalidParameterValue", "DestinationRegion is %s, but the request is for %s", to, c.Region))
	}
	f.int("CompletionDurationMinutes", 15, 2880)
	given := f.tagsFor("snapshot")
	encrypted, key, err := c.encryption(encrypted, key)
	if err != nil {
		f.fail(err)
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.region(from).snapshots[source]
	if old == nil {
		return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' does not exist in %s", source, from)
	}
	if state := old.state(c.now()); state != "completed" {
		return nil, newError("IncorrectState", "the snapshot '%s' is %s", source, state)
	}
	p := c.copyOf(old, encrypted, key)
	p.description, p.tags = description, given["snapshot"]
	return members{{"snapshotId", p.id}, {"tagSet", items[tag]{p.tags}}}, nil
}

// copyOf makes a copy of a snapshot in the request's region; what was encrypted stays so. The caller holds s.mu.
func (c *call) copyOf(old *snapshot, encrypted bool, key string) *snapshot {
	p := c.newSnapshot(c.region(c.Region), old)
	p.lineage = p.id // a copy is no relative
	p.completed = c.now().Add(c.knobs.Settle)
	if encrypted || old.encrypted {
		p.encrypted, p.kmsKey = true, cmp.Or(key, keyARN(c.Region, ""))
	}
	return p
}

func (c *call) modifySnapshotAttribute() (any, error) {
	f := c.form
	id := f.required("SnapshotId")
	f.oneOf("Attribute", "createVolumePermission", "productCodes")
	add, remove := f.permissions("CreateVolumePermission", "Group", "UserId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.ec2Snapshot(id)
	if err != nil {
		return nil, err
	}
	if slices.Contains(add, "all") {
		if p.encrypted {
			return nil, violation("OperationNotPermitted", "the encrypted snapshot %s cannot be shared with all", id)
		}
		if c.knobs.BlockPublicAccess {
			return nil, newError("OperationNotPermitted", "snapshots cannot be shared with all: block public access is enabled")
		}
	}
	if p.encrypted && len(add) > 0 && strings.HasSuffix(p.kmsKey, keyARN("", "")[len("arn:aws:kms::"+Account+":"):]) {
		return nil, violation("InvalidParameter", "the snapshot %s is encrypted with the default key and cannot be shared", id)
	}
	share(p.shared, add, remove)
	return yes, nil
}

func share(shared map[string]bool, add, remove []string) {
	for _, who := range add {
		shared[who] = true
	}
	for _, who := range remove {
		delete(shared, who)
	}
}

// permissions reads the two ways to change who may use a resource: a structure with Add and Remove, or OperationType with
// lists of users and groups. kinds are the members that a permission may have.
func (f *form) permissions(name string, kinds ...string) (add, remove []string) {
	read := func(lists []*form) (out []string) {
		for _, one := range lists {
			n := len(out)
			for _, kind := range kinds {
				if v := one.string(kind); v != "" {
					out = append(out, f.grantee(kind, v))
				}
			}
			if len(out) != n+1 {
				f.fail(violation("InvalidAttributeValue", "%s names not exactly one of %s", one.prefix, strings.Join(kinds, ", ")))
			}
		}
		return out
	}
	add, remove = read(f.at(name).each("Add")), read(f.at(name).each("Remove"))
	var flat []string
	for _, kind := range kinds {
		list := kind
		if kind == "Group" {
			list = "UserGroup"
		}
		for _, v := range f.list(list) {
			flat = append(flat, f.grantee(kind, v))
		}
	}
	switch f.oneOf("OperationType", "add", "remove") {
	case "add":
		add = append(add, flat...)
	case "remove":
		remove = append(remove, flat...)
	default:
		if len(flat) > 0 {
			f.fail(violation("MissingParameter", "the request must contain the parameter OperationType"))
		}
	}
	return add, remove
}

// grantee checks whom something is shared with.
func (f *form) grantee(kind, v string) string {
	good := false
	switch kind {
	case "Group":
		good = v == "all"
	case "UserId":
		_, err := strconv.ParseUint(v, 10, 64)
		good = len(v) == 12 && err == nil
	case "OrganizationArn":
		good = strings.HasPrefix(v, "arn:aws:organizations::") && strings.Contains(v, ":organization/o-")
	case "OrganizationalUnitArn":
		good = strings.HasPrefix(v, "arn:aws:organizations::") && strings.Contains(v, ":ou/o-")
	}
	if !good {
		f.fail(violation("InvalidAttributeValue", "%q is no %s", v, kind))
	}
	return v
}

type permission struct {
	Group string `xml:"group,omitempty"`
	User  string `xml:"userId,omitempty"`
	Org   string `xml:"organizationArn,omitempty"`
	Unit  string `xml:"organizationalUnitArn,omitempty"`
}

func permissionsXML(shared map[string]bool) items[permission] {
	var out items[permission]
	for _, who := range slices.Sorted(maps.Keys(shared)) {
		var p permission
		switch {
		case who == "all":
			p.Group = who
		case strings.Contains(who, ":organization/"):
			p.Org = who
		case strings.Contains(who, ":ou/"):
			p.Unit = who
		default:
			p.User = who
		}
		out.Item = append(out.Item, p)
	}
	return out
}

func (c *call) describeSnapshotAttribute() (any, error) {
	id := c.form.required("SnapshotId")
	if c.form.oneOf("Attribute", "createVolumePermission") == "" {
		c.form.required("Attribute")
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.ec2Snapshot(id)
	if err != nil {
		return nil, err
	}
	return members{{"snapshotId", id}, {"createVolumePermission", permissionsXML(p.shared)}}, nil
}

// tagged returns the tags of each resource. The caller holds s.mu.
func (c *call) tagged(ids []string) ([]*tags, error) {
	if len(ids) == 0 {
		return nil, violation("MissingParameter", "the request must contain the parameter ResourceId")
	}
	var out []*tags
	for _, id := range ids {
		switch kind, _, _ := strings.Cut(id, "-"); kind {
		case "snap":
			p, err := c.ec2Snapshot(id)
			if err != nil {
				return nil, err
			}
			out = append(out, &p.tags)
		case "ami":
			im, err := c.image(id)
			if err != nil {
				return nil, err
			}
			out = append(out, &im.tags)
		case "import":
			task := c.region(c.Region).tasks[id]
			if task == nil {
				return nil, newError("InvalidConversionTaskId", "the task %s does not exist", id)
			}
			out = append(out, &task.tags)
		default:
			return nil, violation("InvalidID", "the ID '%s' is not valid", id)
		}
	}
	return out, nil
}

func (c *call) createTags() (any, error) {
	ids, given := c.form.list("ResourceId"), c.form.tags("Tag")
	if len(given) == 0 {
		c.form.fail(violation("MissingParameter", "the request must contain the parameter Tag"))
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	resources, err := c.tagged(ids)
	if err != nil {
		return nil, err
	}
	for _, t := range resources {
		merged, err := t.merge(given)
		if err != nil {
			return nil, err
		}
		*t = merged
	}
	return yes, nil
}

func (c *call) deleteTags() (any, error) {
	ids := c.form.list("ResourceId")
	var gone []tag
	for _, t := range c.form.each("Tag") {
		gone = append(gone, tag{t.required("Key"), t.string("Value")})
	}
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	resources, err := c.tagged(ids)
	if err != nil {
		return nil, err
	}
	for _, t := range resources {
		*t = slices.DeleteFunc(*t, func(one tag) bool {
			return len(gone) == 0 || slices.ContainsFunc(gone, func(g tag) bool {
				return g.Key == one.Key && (g.Value == "" || g.Value == one.Value)
			})
		})
	}
	return yes, nil
}

func (c *call) describeRegions() (any, error) {
	names, fs := c.form.list("RegionName"), c.form.filters("Filter", "endpoint", "opt-in-status", "region-name")
	c.form.bool("AllRegions")
	if err := c.ready(); err != nil {
		return nil, err
	}
	type item struct {
		Name     string `xml:"regionName"`
		Endpoint string `xml:"regionEndpoint"`
		OptIn    string `xml:"optInStatus"`
	}
	var list []item
	for _, name := range names {
		if !slices.Contains(regions, name) {
			return nil, newError("InvalidParameterValue", "invalid region: %s", name)
		}
	}
	for _, name := range regions {
		it := item{name, "ec2." + name + ".amazonaws.com", "opt-in-not-required"}
		if slices.Contains(optIn, name) {
			it.OptIn = "opted-in"
		}
		if (len(names) == 0 || slices.Contains(names, name)) &&
			fs.match(map[string]string{"endpoint": it.Endpoint, "opt-in-status": it.OptIn, "region-name": name}, nil) {
			list = append(list, it)
		}
	}
	return members{{"regionInfo", items[item]{list}}}, nil
}

func (c *call) getDefaultKey() (any, error) {
	return members{{"kmsKeyId", keyARN(c.Region, "")}}, c.ready()
}

func (c *call) getEncryptionByDefault() (any, error) {
	return members{{"ebsEncryptionByDefault", c.knobs.EncryptByDefault}}, c.ready()
}

func (c *call) getImageBlockPublicAccess() (any, error) {
	state := "unblocked"
	if c.knobs.BlockPublicAccess {
		state = "block-new-sharing"
	}
	return members{{"imageBlockPublicAccessState", state}, {"managedBy", "account"}}, c.ready()
}

func (c *call) getSnapshotBlockPublicAccess() (any, error) {
	state := "unblocked"
	if c.knobs.BlockPublicAccess {
		state = "block-new-sharing"
	}
	return members{{"state", state}, {"managedBy", "account"}}, c.ready()
}
