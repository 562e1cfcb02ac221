package awstest

import (
	"net/http"
	"time"
)

// A lock is the lock of a snapshot ("Amazon EBS snapshot lock" in the EBS user
// guide). The zero value means that there is none.
type lock struct {
	mode          string // governance or compliance
	created, ends time.Time
	coolOff       time.Time // end of the cooling-off period
}

// isLocked reports whether the snapshot has a lock that has not expired.
func (p *snapshot) isLocked(now time.Time) bool { return now.Before(p.lock.ends) }

// tier returns the storage tier of the snapshot: standard or archive.
func (p *snapshot) tier(now time.Time) string {
	if p.archived.IsZero() || now.Before(p.archived) {
		return "standard"
	}
	return "archive"
}

// archiveSnapshot implements ModifySnapshotTier ("Archive Amazon EBS snapshots"
// in the EBS user guide): only completed snapshots that no enabled AMI uses can
// be archived.
func (c *call) archiveSnapshot() (any, error) {
	c.form.oneOf("StorageTier", "archive")
	return c.onSnapshot(func(p *snapshot) (any, error) {
		r := c.region(c.Region)
		for _, id := range r.users(p.id) {
			if state := r.images[id].stateAt(c.now()); state != "disabled" {
				return nil, newError("InvalidSnapshot.InUse", "the snapshot %s is currently in use by %s, which is %s", p.id, id, state)
			}
		}
		if state := p.state(c.now()); state != "completed" || !p.archived.IsZero() {
			return nil, newError("IncorrectState", "the snapshot %s is %s in the tier %s", p.id, state, p.tier(c.now()))
		}
		p.archived = c.now().Add(c.knobs.Settle)
		return members{{"snapshotId", p.id}, {"tieringStartTime", isoTime(c.now())}}, nil
	})
}

// restoreSnapshot implements RestoreSnapshotTier. After a temporary restore,
// the snapshot is archived again.
func (c *call) restoreSnapshot() (any, error) {
	permanent, days := c.form.bool("PermanentRestore"), c.form.int("TemporaryRestoreDays", 1, 180)
	if permanent == (days > 0) {
		c.form.fail(violation("InvalidParameterCombination", "either PermanentRestore or TemporaryRestoreDays is required"))
	}
	return c.onSnapshot(func(p *snapshot) (any, error) {
		if p.tier(c.now()) != "archive" {
			return nil, newError("IncorrectState", "the snapshot %s is not archived", p.id)
		}
		p.archived = time.Time{}
		if !permanent {
			p.archived = c.now().AddDate(0, 0, int(days))
		}
		return members{
			{"snapshotId", p.id}, {"isPermanentRestore", permanent}, {"restoreDuration", days}, {"restoreStartTime", isoTime(c.now())},
		}, nil
	})
}

// lockSnapshot implements LockSnapshot. A lock in compliance mode can only be
// extended after its cooling-off period.
func (c *call) lockSnapshot() (any, error) {
	f := c.form
	f.required("LockMode")
	mode := f.oneOf("LockMode", "governance", "compliance")
	days, date := f.int("LockDuration", 1, 36500), f.string("ExpirationDate")
	hours := f.int("CoolOffPeriod", 1, 72)
	var until time.Time
	if date != "" {
		var err error
		if until, err = time.Parse(time.RFC3339, date); err != nil {
			f.fail(violation("InvalidParameterValue", "ExpirationDate: %v", err))
		}
	}
	if (days > 0) == (date != "") {
		f.fail(violation("InvalidParameterCombination", "either LockDuration or ExpirationDate is required"))
	}
	if hours > 0 && mode == "governance" {
		f.fail(violation("InvalidParameterCombination", "CoolOffPeriod requires the compliance mode"))
	}
	return c.onSnapshot(func(p *snapshot) (any, error) {
		now := c.now()
		next := lock{mode: mode, created: now, ends: until, coolOff: now.Add(time.Duration(hours) * time.Hour)}
		if days > 0 {
			next.ends = now.AddDate(0, 0, int(days))
		}
		if !next.ends.After(now) {
			return nil, violation("InvalidParameterValue", "ExpirationDate %s is in the past", date)
		}
		if p.isFixed(now) && (mode != "compliance" || hours > 0 || next.ends.Before(p.lock.ends)) {
			return nil, newError("OperationNotPermitted", "the lock of %s can only be extended", p.id)
		}
		p.lock = next
		return members{
			{"snapshotId", p.id}, {"lockState", p.lockState(now)}, {"lockDuration", days}, {"lockCreatedOn", isoTime(now)},
			{"lockExpiresOn", isoTime(next.ends)}, {"coolOffPeriod", hours},
		}, nil
	})
}

func (c *call) unlockSnapshot() (any, error) {
	return c.onSnapshot(func(p *snapshot) (any, error) {
		switch now := c.now(); {
		case !p.isLocked(now):
			return nil, newError("IncorrectState", "the snapshot %s is not locked", p.id)
		case p.isFixed(now):
			return nil, newError("OperationNotPermitted", "the snapshot %s is locked in compliance mode", p.id).withStatus(http.StatusForbidden)
		}
		p.lock = lock{}
		return members{{"snapshotId", p.id}}, nil
	})
}

// isFixed reports whether the lock cannot be removed before it expires.
func (p *snapshot) isFixed(now time.Time) bool {
	return p.isLocked(now) && p.lock.mode == "compliance" && !now.Before(p.lock.coolOff)
}

func (p *snapshot) lockState(now time.Time) string {
	if p.lock.mode == "compliance" && !p.isFixed(now) {
		return "compliance-cooloff"
	}
	return p.lock.mode
}
