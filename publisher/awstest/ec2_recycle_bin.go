package awstest

import (
	"maps"
	"slices"
	"time"
)

// A recycleBin holds what was deleted while [Knobs.RecycleBin] was set ("Recycle
// Bin" in the EBS user guide). Images in it keep their snapshots from being
// deleted.
type recycleBin struct {
	snapshots map[string]binned[*snapshot]
	images    map[string]binned[*image]
}

type binned[T any] struct {
	object      T
	enter, exit time.Time
}

// purge forgets what has left the bin. The caller holds s.mu.
func (s *Server) purge(r *region) {
	now := s.now()
	maps.DeleteFunc(r.bin.images, func(_ string, b binned[*image]) bool { return !now.Before(b.exit) })
	maps.DeleteFunc(r.bin.snapshots, func(_ string, b binned[*snapshot]) bool {
		if now.Before(b.exit) {
			return false
		}
		for _, sum := range b.object.blocks {
			s.blocks.release(sum)
		}
		return true
	})
}

type binXML struct {
	Snapshot    string `xml:"snapshotId,omitempty"`
	Image       string `xml:"imageId,omitempty"`
	Name        string `xml:"name,omitempty"`
	Description string `xml:"description,omitempty"`
	Enter       string `xml:"recycleBinEnterTime"`
	Exit        string `xml:"recycleBinExitTime"`
}

func (c *call) listSnapshotsInBin() (any, error) {
	return listBin(c, "SnapshotId", "snapshotSet", func(r *region) map[string]binned[*snapshot] { return r.bin.snapshots },
		func(id string, p *snapshot) binXML { return binXML{Snapshot: id, Description: p.description} })
}

func (c *call) listImagesInBin() (any, error) {
	return listBin(c, "ImageId", "imageSet", func(r *region) map[string]binned[*image] { return r.bin.images },
		func(id string, im *image) binXML {
			return binXML{Image: id, Name: im.name, Description: im.description}
		})
}

// listBin lists a kind of objects in the bin: those with the IDs under a name, or
// all.
func listBin[T any](c *call, name, element string, of func(*region) map[string]binned[T], describe func(string, T) binXML) (any, error) {
	ids, pages := c.form.list(name), c.form.page(5)
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	var list []binXML
	for _, id := range slices.Sorted(maps.Keys(of(r))) {
		if len(ids) > 0 && !slices.Contains(ids, id) {
			continue
		}
		b := of(r)[id]
		x := describe(id, b.object)
		x.Enter, x.Exit = isoTime(b.enter), isoTime(b.exit)
		list = append(list, x)
	}
	return paged(pages, c, element, list)
}

func (c *call) restoreSnapshotFromBin() (any, error) {
	id := c.form.required("SnapshotId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	b, found := r.bin.snapshots[id]
	if !found {
		return nil, newError("InvalidSnapshot.NotFound", "the snapshot '%s' is not in the Recycle Bin", id)
	}
	delete(r.bin.snapshots, id)
	r.snapshots[id] = b.object
	return members{{"snapshotId", id}, {"status", "recovering"}}, nil
}

func (c *call) restoreImageFromBin() (any, error) {
	id := c.form.required("ImageId")
	if err := c.ready(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.region(c.Region)
	c.purge(r)
	b, found := r.bin.images[id]
	if !found {
		return nil, newError("InvalidAMIID.NotFound", "the image id '[%s]' is not in the Recycle Bin", id)
	}
	for _, other := range r.images {
		if other.name == b.object.name {
			return nil, newError("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", other.name, other.id)
		}
	}
	delete(r.bin.images, id)
	r.images[id] = b.object
	return yes, nil
}
