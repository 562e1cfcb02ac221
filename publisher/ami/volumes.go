package ami

import (
	"cmp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// A volumeLimit has the limits of a volume type, from "Amazon EBS volume types"
// in the EBS user guide.
type volumeLimit struct {
	minSize, maxSize int64 // in GiB
	minIOPS, maxIOPS int64 // 0 if IOPS cannot be set
	iopsPerGiB       int64
	maxThroughput    int64 // in MiB/s; 0 if it cannot be set
	needsIOPS        bool
	noBoot           bool
}

var volumeLimits = map[types.VolumeType]volumeLimit{
	types.VolumeTypeStandard: {minSize: 1, maxSize: 1024},
	types.VolumeTypeGp2:      {minSize: 1, maxSize: 16384},
	types.VolumeTypeGp3:      {minSize: 1, maxSize: 65536, minIOPS: 3000, maxIOPS: 80000, iopsPerGiB: 500, maxThroughput: 2000},
	types.VolumeTypeIo1:      {minSize: 4, maxSize: 16384, minIOPS: 100, maxIOPS: 64000, iopsPerGiB: 50, needsIOPS: true},
	types.VolumeTypeIo2:      {minSize: 4, maxSize: 65536, minIOPS: 100, maxIOPS: 256000, iopsPerGiB: 1000, needsIOPS: true},
	types.VolumeTypeSt1:      {minSize: 125, maxSize: 16384, noBoot: true},
	types.VolumeTypeSc1:      {minSize: 125, maxSize: 16384, noBoot: true},
}

// Every gp3 volume has this performance, regardless of its size.
const (
	gp3IOPS       = 3000
	gp3Throughput = 125 // in MiB/s; more requires 1 IOPS for each 0.25 MiB/s
)

// checkVolumes compares the volumes of an image with the limits of their types,
// because EC2 does so only after the upload. The first volume is the root.
func checkVolumes(mappings []types.BlockDeviceMapping) error {
	for i, m := range mappings {
		if m.Ebs == nil {
			continue
		}
		if err := checkVolume(m.Ebs, i == 0); err != nil {
			return fail(ClassUsage, "volume %s: %w", aws.ToString(m.DeviceName), err)
		}
	}
	return nil
}

func checkVolume(v *types.EbsBlockDevice, root bool) error {
	kind := cmp.Or(v.VolumeType, types.VolumeTypeStandard)
	limit, known := volumeLimits[kind]
	size, iops, throughput := int64(aws.ToInt32(v.VolumeSize)), int64(aws.ToInt32(v.Iops)), int64(aws.ToInt32(v.Throughput))
	invalid := func(format string, args ...any) error { return fail(ClassUsage, format, args...) }
	switch {
	case !known:
		return invalid("unknown type %q: use gp3, gp2, io2, io1 or standard", kind)
	case root && limit.noBoot:
		return invalid("EC2 cannot boot from a volume of the type %s: use gp3", kind)
	case v.VolumeSize != nil && (size < limit.minSize || size > limit.maxSize):
		return invalid("the type %s has %d to %d GiB, not %d", kind, limit.minSize, limit.maxSize, size)
	case limit.needsIOPS && v.Iops == nil:
		return invalid("the type %s requires Iops: set it with --register", kind)
	case v.Iops != nil && limit.maxIOPS == 0:
		return invalid("the type %s does not support Iops", kind)
	case v.Iops != nil && (iops < limit.minIOPS || iops > limit.maxIOPS):
		return invalid("the type %s has %d to %d IOPS, not %d", kind, limit.minIOPS, limit.maxIOPS, iops)
	case v.VolumeSize != nil && iops > size*limit.iopsPerGiB && (limit.needsIOPS || iops > gp3IOPS):
		return invalid("the type %s has at most %d IOPS per GiB, so that %d IOPS require %d GiB instead of %d",
			kind, limit.iopsPerGiB, iops, (iops+limit.iopsPerGiB-1)/limit.iopsPerGiB, size)
	case v.Throughput != nil && limit.maxThroughput == 0:
		return invalid("the type %s does not support Throughput", kind)
	case v.Throughput != nil && (throughput < gp3Throughput || throughput > limit.maxThroughput):
		return invalid("the type %s has %d to %d MiB/s, not %d", kind, gp3Throughput, limit.maxThroughput, throughput)
	case throughput*4 > max(iops, gp3IOPS):
		return invalid("a throughput of %d MiB/s requires %d IOPS", throughput, throughput*4)
	}
	return nil
}
