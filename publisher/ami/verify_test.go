package ami_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	ebstypes "github.com/aws/aws-sdk-go-v2/service/ebs/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/slipway-build/slipway/exporter/diskmap"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/awstest"
	"github.com/slipway-build/slipway/publisher/disk"
)

func verify(t testing.TB, fake *awstest.Server, id string, d *disk.Disk, o ami.Options) *ami.Verification {
	t.Helper()
	o.Timeout = 2 * time.Second
	v, err := ami.Verify(t.Context(), configure(t, fake), id, d, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// TestVerify compares a disk with AMIs of other disks, and with its own.
func TestVerify(t *testing.T) {
	t.Parallel()
	const blocks = 12
	data := content(1, blocks)
	changed := func(change func(data []byte)) []byte {
		data := bytes.Clone(data)
		change(data)
		return data
	}
	outside := disk.Place{Component: "outside of all partitions"}
	for what, test := range map[string]struct {
		published []byte
		want      []ami.BlockDifference
		different int
	}{
		"same": {data, nil, 0},
		"one byte": {
			changed(func(data []byte) { data[4*disk.BlockSize+12345] ^= 1 }),
			[]ami.BlockDifference{{Index: 4, Kind: ami.BlockChanged, Offset: 4*disk.BlockSize + 12345, Bytes: 1, Place: outside}}, 1,
		},
		"boot code and partition": {
			changed(func(data []byte) { data[3] ^= 1; data[9*512]++; data[disk.BlockSize] ^= 1 }),
			[]ami.BlockDifference{
				{Index: 0, Kind: ami.BlockChanged, Offset: 3, Bytes: 2, Place: disk.Place{Component: "boot code"}},
				{Index: 1, Kind: ami.BlockChanged, Offset: disk.BlockSize, Bytes: 1, Place: outside},
			}, 2,
		},
		"missing": {
			changed(func(data []byte) { clear(data[3*disk.BlockSize:][:disk.BlockSize]) }),
			[]ami.BlockDifference{{Index: 3, Kind: ami.BlockMissing, Offset: 3 * disk.BlockSize, Place: outside}}, 1,
		},
		"extra": {
			changed(func(data []byte) { data[5*disk.BlockSize+7] = 1 }),
			[]ami.BlockDifference{{Index: 5, Kind: ami.BlockExtra, Offset: 5*disk.BlockSize + 7, Bytes: 1, Place: outside}}, 1,
		},
		"extra after the end": {
			append(append(bytes.Clone(data), make([]byte, disk.BlockSize)...), bytes.Repeat([]byte{7}, disk.BlockSize)...),
			[]ami.BlockDifference{{Index: 13, Kind: ami.BlockExtra, Offset: 13 * disk.BlockSize, Bytes: disk.BlockSize, Place: outside}}, 1,
		},
		"foreign": {content(2, 40), nil, 27},
	} {
		t.Run(what, func(t *testing.T) {
			for _, encrypt := range []bool{false, true} {
				fake := start(t, awstest.Knobs{})
				image := mustPublish(t, fake, write(t, test.published), ami.Options{Encrypt: encrypt}).Images[0]
				d := write(t, data)
				for _, id := range []string{image.Image, image.Snapshot} {
					v := verify(t, fake, id, d, ami.Options{})
					if v.Match != (test.different == 0) || v.Different != test.different || len(v.Attributes) > 0 || v.Snapshot != image.Snapshot {
						t.Errorf("%s: got %+v", id, v)
					}
					want := slices.Clone(test.want)
					if test.different > len(want) { // the places of a foreign disk do not matter
						if len(v.Differences) != 16 {
							t.Errorf("%d blocks are described, want 16", len(v.Differences))
						}
						continue
					}
					if what == "missing" {
						want[0].Bytes = v.Differences[0].Bytes // some random bytes are zero
						want[0].Offset = v.Differences[0].Offset
						if want[0].Bytes < disk.BlockSize*99/100 || want[0].Offset > 3*disk.BlockSize+10 {
							t.Errorf("got %+v", v.Differences)
						}
					}
					if diff := cmp.Diff(want, v.Differences); diff != "" && len(want)+len(v.Differences) > 0 {
						t.Errorf("%s, encrypted %v: differences (-want +got):\n%s", id, encrypt, diff)
					}
				}
			}
		})
	}
}

// TestVerifyAttributes registers images of the right snapshot with other
// attributes.
func TestVerifyAttributes(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 3)
	d := write(t, data)
	good := mustPublish(t, fake, d, ami.Options{}).Images[0]
	client := ec2.NewFromConfig(configure(t, fake))
	foreign := mustPublish(t, fake, write(t, content(2, 3)), ami.Options{Name: "machine-2"}).Images[0]
	for what, test := range map[string]struct {
		change func(*ec2.RegisterImageInput)
		want   []ami.AttributeDifference
	}{
		"none":         {func(*ec2.RegisterImageInput) {}, []ami.AttributeDifference{}},
		"IMDS":         {func(r *ec2.RegisterImageInput) { r.ImdsSupport = "" }, []ami.AttributeDifference{{Name: "ImdsSupport", Want: "v2.0"}}},
		"boot mode":    {func(r *ec2.RegisterImageInput) { r.BootMode = "uefi" }, []ami.AttributeDifference{{Name: "BootMode", Got: "uefi", Want: "legacy-bios"}}},
		"no boot mode": {func(r *ec2.RegisterImageInput) { r.BootMode = "" }, []ami.AttributeDifference{{Name: "BootMode", Want: "legacy-bios"}}},
		"TPM": {
			func(r *ec2.RegisterImageInput) { r.BootMode, r.TpmSupport = "uefi", "v2.0" },
			[]ami.AttributeDifference{{Name: "BootMode", Got: "uefi", Want: "legacy-bios"}, {Name: "TpmSupport", Got: "v2.0"}},
		},
		"architecture": {
			func(r *ec2.RegisterImageInput) { r.Architecture, r.BootMode = "arm64", "uefi" },
			[]ami.AttributeDifference{{Name: "Architecture", Got: "arm64", Want: "x86_64"}, {Name: "BootMode", Got: "uefi", Want: "legacy-bios"}},
		},
		"ENA": {func(r *ec2.RegisterImageInput) { r.EnaSupport = nil }, []ami.AttributeDifference{{Name: "EnaSupport", Got: "false", Want: "true"}}},
		"UEFI variables": {
			func(r *ec2.RegisterImageInput) { r.BootMode, r.UefiData = "uefi", aws.String("QU1aTg==") },
			[]ami.AttributeDifference{
				{Name: "BootMode", Got: "uefi", Want: "legacy-bios"},
				{Name: "UefiData", Got: fmt.Sprintf("4 bytes, sha256:%x", sha256.Sum256([]byte("AMZN")))},
			},
		},
		"second disk": {
			func(r *ec2.RegisterImageInput) {
				r.BlockDeviceMappings = append(r.BlockDeviceMappings, types.BlockDeviceMapping{
					DeviceName: aws.String("/dev/xvdb"), Ebs: &types.EbsBlockDevice{SnapshotId: &foreign.Snapshot},
				})
			},
			[]ami.AttributeDifference{{Name: "BlockDeviceMappings", Got: "/dev/xvda,/dev/xvdb=" + foreign.Snapshot, Want: "/dev/xvda"}},
		},
	} {
		t.Run(what, func(t *testing.T) {
			input := &ec2.RegisterImageInput{
				Name: aws.String("by hand " + what), Architecture: "x86_64", BootMode: "legacy-bios", ImdsSupport: "v2.0",
				EnaSupport: aws.Bool(true), VirtualizationType: aws.String("hvm"), RootDeviceName: aws.String("/dev/xvda"),
				BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: &good.Snapshot}}},
			}
			test.change(input)
			out, err := client.RegisterImage(t.Context(), input)
			if err != nil {
				t.Fatal(err)
			}
			v := verify(t, fake, *out.ImageId, d, ami.Options{})
			if diff := cmp.Diff(test.want, v.Attributes); diff != "" {
				t.Errorf("attributes (-want +got):\n%s", diff)
			}
			if v.Match != (len(test.want) == 0) || v.Different != 0 {
				t.Errorf("got %+v", v)
			}
		})
	}

	// Only the owner can read UefiData.
	fake.SetKnobs(awstest.Knobs{Denied: []string{"ec2:DescribeImageAttribute"}})
	if v := verify(t, fake, good.Image, d, ami.Options{}); !v.Match || len(v.Notes) != 1 || !strings.HasPrefix(v.Notes[0], "UefiData is not compared: AWS refused: ") {
		t.Errorf("got %+v", v)
	}
	fake.SetKnobs(awstest.Knobs{})

	// The same options as for the publish are right.
	o := ami.Options{Name: "machine-3"}
	o.Register.ImdsSupport = "v2.0"
	o.Register.RootDeviceName = aws.String("/dev/sda1")
	image := mustPublish(t, fake, d, o).Images[0]
	if v := verify(t, fake, image.Image, d, o); !v.Match {
		t.Errorf("got %+v", v)
	}
	if v := verify(t, fake, image.Image, d, ami.Options{}); v.Match {
		t.Errorf("got %+v", v)
	}
}

// TestVerifyEncryptedGap leaves zero blocks out of an encrypted snapshot, where
// they read as random data. Only those that no program reads may be missing.
func TestVerifyEncryptedGap(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 6) // blocks 2 and 5 are zero
	path := filepath.Join(t.TempDir(), "machine.raw")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	client := ebs.NewFromConfig(configure(t, fake))
	start, err := client.StartSnapshot(t.Context(), &ebs.StartSnapshotInput{VolumeSize: aws.Int64(1), Encrypted: aws.Bool(true), ClientToken: aws.String("gap")})
	if err != nil {
		t.Fatal(err)
	}
	all := sha256.New()
	for _, b := range d.Blocks {
		all.Write(b.Sum[:])
		sum := base64.StdEncoding.EncodeToString(b.Sum[:])
		if _, err := client.PutSnapshotBlock(t.Context(), &ebs.PutSnapshotBlockInput{
			SnapshotId: start.SnapshotId, BlockIndex: &b.Index, BlockData: bytes.NewReader(data[int(b.Index)*disk.BlockSize:][:disk.BlockSize]),
			DataLength: aws.Int32(disk.BlockSize), Checksum: &sum, ChecksumAlgorithm: ebstypes.ChecksumAlgorithmChecksumAlgorithmSha256,
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.CompleteSnapshot(t.Context(), &ebs.CompleteSnapshotInput{SnapshotId: start.SnapshotId, ChangedBlocksCount: aws.Int32(int32(len(d.Blocks)))}); err != nil {
		t.Fatal(err)
	}
	v := verify(t, fake, *start.SnapshotId, d, ami.Options{})
	if v.Match || v.Different != 2 || v.Differences[0].Index != 2 || v.Differences[0].Kind != ami.BlockUnwritten {
		t.Errorf("got %+v", v)
	}

	m := diskmap.Map{Version: diskmap.Version, Size: d.Size, Extents: []diskmap.Extent{
		{Offset: 0, Length: 5 * disk.BlockSize, Type: diskmap.Data}, {Offset: 5 * disk.BlockSize, Length: disk.BlockSize, Type: diskmap.Free},
	}}
	var text bytes.Buffer
	if err := m.Write(&text); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".map", text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := verify(t, fake, *start.SnapshotId, open(t, path), ami.Options{}); v.Different != 1 {
		t.Errorf("with a map: got %+v", v)
	}
}

// ImportSnapshot leaves out zero blocks, and they read as zeros even if the
// snapshot is encrypted.
func TestVerifyImported(t *testing.T) {
	t.Parallel()
	data := content(1, 6) // blocks 2 and 5 are zero
	d := write(t, data)
	changed := bytes.Clone(data)
	changed[2*disk.BlockSize] = 1
	for _, encrypt := range []bool{false, true} {
		fake := start(t, awstest.Knobs{})
		fake.CreateBucket(home, "disks")
		image := mustPublish(t, fake, d, ami.Options{Method: ami.MethodImport, Bucket: "disks", Encrypt: encrypt}).Images[0]
		if v := verify(t, fake, image.Image, d, ami.Options{}); !v.Match || v.Blocks != 4 {
			t.Errorf("encrypted: %v: got %+v", encrypt, v)
		}
		v := verify(t, fake, image.Image, write(t, changed), ami.Options{})
		if v.Match || v.Different != 1 || v.Differences[0].Index != 2 || v.Differences[0].Kind != ami.BlockMissing {
			t.Errorf("encrypted: %v: a changed disk: got %+v", encrypt, v)
		}
	}
}

// TestVerifyMap verifies with the digests of a disk instead of its content.
func TestVerifyMap(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 6)
	image := mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
	whole := sparse.Bytes(data)
	m := whole.Map()
	path := filepath.Join(t.TempDir(), "machine.raw.map")
	save := func() *disk.Disk {
		var text bytes.Buffer
		if err := m.Write(&text); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := disk.OpenMap(path)
		if m.Digests == nil {
			if err == nil || !strings.Contains(err.Error(), "MAP=true") {
				t.Errorf("without digests: %v", err)
			}
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	save()
	var err error
	if m.Digests, err = whole.Digests(); err != nil {
		t.Fatal(err)
	}
	d := save()
	var o ami.Options
	o.Architecture, o.Register.BootMode = disk.AMD64, "legacy-bios"
	if v := verify(t, fake, image.Image, d, o); !v.Match || v.Blocks != 4 || len(v.Notes) > 0 || v.Content != "sha256:"+write(t, data).Digest() {
		t.Errorf("got %+v", v)
	}
	if v := verify(t, fake, image.Image, d, ami.Options{}); !v.Match || len(v.Notes) != 1 {
		t.Errorf("got %+v", v)
	}
	o.Register.BootMode = "uefi"
	if v := verify(t, fake, image.Image, d, o); v.Match || len(v.Attributes) != 1 {
		t.Errorf("got %+v", v)
	}
	m.Digests[2].SHA256 = strings.Repeat("0f", 32)
	v := verify(t, fake, image.Snapshot, save(), ami.Options{})
	if diff := cmp.Diff([]ami.BlockDifference{{Index: 3, Kind: ami.BlockChanged, Offset: 3 * disk.BlockSize}}, v.Differences); diff != "" || v.Match {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
}

func TestVerifyErrors(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	d := write(t, content(1, 3))
	for id, want := range map[string]string{
		"i-0123":                 "neither an AMI (ami-…) nor a snapshot",
		"ami-0123456789abcdef0":  "there is no AMI ami-0123456789abcdef0 in us-east-1",
		"snap-0123456789abcdef0": "InvalidSnapshot.NotFound",
	} {
		if _, err := ami.Verify(t.Context(), configure(t, fake), id, d, ami.Options{Timeout: time.Second}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", id, err, want)
		}
	}
	_, err := ami.Verify(t.Context(), configure(t, fake), "ami-1", d, ami.Options{Regions: []string{"us-east-1", "eu-west-1"}})
	if ami.ClassOf(err) != ami.ClassUsage {
		t.Errorf("two regions: %v", err)
	}
}

// TestVerifyFaults verifies while AWS throttles and fails: the verdict does not
// change.
func TestVerifyFaults(t *testing.T) {
	t.Parallel()
	fake := start(t, awstest.Knobs{})
	data := content(1, 12)
	image := mustPublish(t, fake, write(t, data), ami.Options{}).Images[0]
	data[disk.BlockSize] ^= 1
	d := write(t, data)
	for seed := range uint64(10) {
		knobs := fake.Knobs()
		knobs.Faults = awstest.Random(seed, 0.3, 3, awstest.Throttle, awstest.Internal, awstest.Reset, awstest.LostReset, awstest.LostError)
		fake.SetKnobs(knobs)
		if v := verify(t, fake, image.Image, d, ami.Options{}); v.Different != 1 || v.Blocks != 8 {
			t.Errorf("seed %d: got %+v", seed, v)
		}
	}
}
