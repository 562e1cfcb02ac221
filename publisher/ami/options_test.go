package ami

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/disk"
)

func TestRegisterRequest(t *testing.T) {
	size, iops := int32(8), int32(6000)
	device, other := "/dev/xvda", "/dev/sdb"
	o := Options{Name: "machine", VolumeSize: 1, VolumeType: types.VolumeTypeGp3, Architecture: disk.ARM64}
	got := o.register("snap-1")
	root := got.BlockDeviceMappings[0]
	if got.Architecture != "arm64" || *got.VirtualizationType != "hvm" || !*got.EnaSupport || got.ImdsSupport != "v2.0" || *got.RootDeviceName != device ||
		*root.DeviceName != device || *root.Ebs.SnapshotId != "snap-1" || root.Ebs.VolumeType != "gp3" || !*root.Ebs.DeleteOnTermination || root.Ebs.Encrypted != nil {
		t.Errorf("got %+v, %+v", got, root.Ebs)
	}
	no := false
	o.Register = ec2.RegisterImageInput{EnaSupport: &no, BlockDeviceMappings: []types.BlockDeviceMapping{
		{DeviceName: &other, Ebs: &types.EbsBlockDevice{VolumeSize: &size}},
		{DeviceName: &device, Ebs: &types.EbsBlockDevice{VolumeSize: &size, Iops: &iops}},
	}}
	got = o.register("snap-1")
	root = got.BlockDeviceMappings[0]
	if *got.EnaSupport || len(got.BlockDeviceMappings) != 2 || *root.Ebs.Iops != iops || *root.Ebs.VolumeSize != size || *root.Ebs.SnapshotId != "snap-1" {
		t.Errorf("got %+v, %+v", got, root.Ebs)
	}
	if o.Register.BlockDeviceMappings[1].Ebs.SnapshotId != nil {
		t.Error("the request shares a mapping with the options")
	}
}
