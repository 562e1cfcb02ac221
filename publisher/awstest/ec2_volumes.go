package awstest

// A volumeType has the limits of a volume type ("Amazon EBS volume types" in
// the EBS user guide).
type volumeType struct {
	minSize, maxSize             int64 // in GiB
	minIOPS, maxIOPS, iopsPerGiB int64 // 0 if IOPS cannot be set
	maxThroughput                int64 // in MiB/s; 0 if it cannot be set
	noBoot                       bool
	needsIOPS                    bool
}

var volumeTypes = map[string]volumeType{
	"standard": {minSize: 1, maxSize: 1024},
	"gp2":      {minSize: 1, maxSize: 16384},
	"gp3":      {minSize: 1, maxSize: 65536, minIOPS: 3000, maxIOPS: 80000, iopsPerGiB: 500, maxThroughput: 2000},
	"io1":      {minSize: 4, maxSize: 16384, minIOPS: 100, maxIOPS: 64000, iopsPerGiB: 50, needsIOPS: true},
	"io2":      {minSize: 4, maxSize: 65536, minIOPS: 100, maxIOPS: 256000, iopsPerGiB: 1000, needsIOPS: true},
	"st1":      {minSize: 125, maxSize: 16384, noBoot: true},
	"sc1":      {minSize: 125, maxSize: 16384, noBoot: true},
}

// The included performance of gp3 does not depend on the size of the volume.
const (
	includedIOPS       = 3000
	includedThroughput = 125 // in MiB/s; more requires 4 IOPS per MiB/s
)

// check compares a volume, whose size is known, with the limits of its type.
func (v *ebs) check(root bool) error {
	t := volumeTypes[v.Type]
	invalid := func(format string, args ...any) error {
		return violation("InvalidParameterCombination", format, args...)
	}
	switch {
	case root && t.noBoot:
		return invalid("volume type %s cannot be a root volume", v.Type)
	case v.Size < t.minSize || v.Size > t.maxSize:
		return invalid("volume type %s has %d to %d GiB, not %d", v.Type, t.minSize, t.maxSize, v.Size)
	case t.needsIOPS && v.Iops == 0:
		return violation("MissingParameter", "volume type %s requires Iops", v.Type)
	case v.Iops != 0 && t.maxIOPS == 0:
		return invalid("Iops is not supported for volume type %s", v.Type)
	case v.Iops != 0 && (v.Iops < t.minIOPS || v.Iops > t.maxIOPS):
		return invalid("volume type %s has %d to %d IOPS, not %d", v.Type, t.minIOPS, t.maxIOPS, v.Iops)
	case v.Iops > v.Size*t.iopsPerGiB && (t.needsIOPS || v.Iops > includedIOPS):
		return invalid("volume type %s has at most %d IOPS per GiB: %d IOPS require more than %d GiB", v.Type, t.iopsPerGiB, v.Iops, v.Size)
	case v.Throughput != 0 && t.maxThroughput == 0:
		return invalid("Throughput is not supported for volume type %s", v.Type)
	case v.Throughput != 0 && (v.Throughput < includedThroughput || v.Throughput > t.maxThroughput):
		return invalid("volume type %s has %d to %d MiB/s, not %d", v.Type, includedThroughput, t.maxThroughput, v.Throughput)
	case v.Throughput*4 > max(v.Iops, includedIOPS):
		return invalid("a throughput of %d MiB/s requires %d IOPS", v.Throughput, v.Throughput*4)
	}
	return nil
}
