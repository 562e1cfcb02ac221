package awstest

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// tags are sorted by key.
type tags []tag

type tag struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

// newTags checks tags as EC2 does: at most 50, with keys of at most 128 and
// values of at most 256 characters.
func newTags(list []tag) (tags, error) {
	t := slices.Clone(list)
	slices.SortFunc(t, func(a, b tag) int { return cmp.Compare(a.Key, b.Key) })
	for i, one := range t {
		switch {
		case one.Key == "" || len([]rune(one.Key)) > 128 || len([]rune(one.Value)) > 256:
			return nil, violation("InvalidParameterValue", "tag %q: a key must have 1 to 128 characters, a value at most 256", one.Key)
		case strings.HasPrefix(strings.ToLower(one.Key), "aws:"):
			return nil, violation("InvalidParameterValue", "tag %q: keys that start with aws: are reserved", one.Key)
		case i > 0 && one.Key == t[i-1].Key:
			return nil, violation("InvalidParameterValue", "tag %q occurs twice", one.Key)
		}
	}
	if len(t) > 50 {
		return nil, violation("TagLimitExceeded", "there are %d tags, more than 50", len(t))
	}
	return t, nil
}

func (t tags) plain() map[string]string {
	m := map[string]string{}
	for _, one := range t {
		m[one.Key] = one.Value
	}
	return m
}

// merge returns the tags of t and more. For equal keys, more takes precedence.
func (t tags) merge(more tags) (tags, error) {
	m := t.plain()
	maps.Copy(m, more.plain())
	var list []tag
	for key, value := range m {
		list = append(list, tag{key, value})
	}
	return newTags(list)
}

// tagsFor reads TagSpecification.N, whose resource types must be among types.
func (f *form) tagsFor(types ...string) map[string]tags {
	out := map[string]tags{}
	for _, spec := range f.each("TagSpecification") {
		kind := spec.oneOf("ResourceType", types...)
		if kind == "" || out[kind] != nil {
			f.fail(violation("InvalidParameterValue", "%sResourceType is missing or occurs twice", spec.prefix))
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

// tagged returns the tags of the resources. The caller holds s.mu.
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
		case "i":
			i, err := c.instance(id)
			if err != nil {
				return nil, err
			}
			out = append(out, &i.tags)
		case "vol":
			v, err := c.volume(id)
			if err != nil {
				return nil, err
			}
			out = append(out, &v.tags)
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

// taggable returns the tags of all resources of the region, by ID. The caller
// holds s.mu.
func (r *region) taggable() map[string]tags {
	all := map[string]tags{}
	for id, p := range r.snapshots {
		all[id] = p.tags
	}
	for id, im := range r.images {
		all[id] = im.tags
	}
	for id, i := range r.instances {
		all[id] = i.tags
	}
	for id, v := range r.volumes {
		all[id] = v.tags
	}
	for id, t := range r.tasks {
		all[id] = t.tags
	}
	for id, t := range r.replaces {
		all[id] = t.tags
	}
	return all
}

// resourceTypes are the types of resources by the start of their IDs.
var resourceTypes = map[string]string{
	"snap": "snapshot", "ami": "image", "i": "instance", "vol": "volume", "import": "import-snapshot-task", "replacevol": "replace-root-volume-task",
	"eni": "network-interface", "sg": "security-group", "subnet": "subnet",
}

func (c *call) describeTags() (any, error) {
	fs := c.form.filters("Filter", "key", "resource-id", "resource-type", "tag:", "value")
	pages := c.form.page(5)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	type item struct {
		Resource string `xml:"resourceId"`
		Type     string `xml:"resourceType"`
		Key      string `xml:"key"`
		Value    string `xml:"value"`
	}
	var list []item
	all := c.region(c.Region).taggable()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		prefix, _, _ := strings.Cut(id, "-")
		for _, t := range all[id] {
			x := item{id, resourceTypes[prefix], t.Key, t.Value}
			if fs.match(map[string]string{"key": x.Key, "resource-id": id, "resource-type": x.Type, "value": x.Value}, tags{t}) {
				list = append(list, x)
			}
		}
	}
	return paged(pages, c, "tagSet", list)
}
