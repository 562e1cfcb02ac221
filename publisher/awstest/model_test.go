package awstest_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ebs"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// The fake knows every parameter in the SDK's models, except those that are
// named here, which it rejects. It ignores none.
func TestParametersOfTheModel(t *testing.T) {
	c := start(t, awstest.Knobs{})
	id, image, instance, region := aws.String("snap-0"), aws.String("ami-0"), aws.String("i-0"), aws.String("us-east-1")
	for _, test := range []struct {
		input   any // with the parameters that the SDK requires
		unknown []string
	}{
		{&ec2.CancelImportTaskInput{}, nil},
		{&ec2.CopyImageInput{Name: aws.String("machine"), SourceImageId: image, SourceRegion: region},
			[]string{"DestinationAvailabilityZone", "DestinationAvailabilityZoneId", "DestinationOutpostArn"}},
		{&ec2.CopySnapshotInput{SourceRegion: region, SourceSnapshotId: id}, []string{"DestinationAvailabilityZone", "DestinationOutpostArn"}},
		{&ec2.CreateReplaceRootVolumeTaskInput{InstanceId: instance}, []string{"VolumeId"}},
		{&ec2.CreateTagsInput{Resources: []string{"ami-0"}, Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}}, nil},
		{&ec2.DeleteSnapshotInput{SnapshotId: id}, nil},
		{&ec2.DeleteTagsInput{Resources: []string{"ami-0"}}, nil},
		{&ec2.DeregisterImageInput{ImageId: image}, nil},
		{&ec2.DescribeImageAttributeInput{ImageId: image, Attribute: "description"}, nil},
		{&ec2.DescribeImagesInput{}, nil},
		{&ec2.DescribeImportSnapshotTasksInput{}, nil},
		{&ec2.DescribeInstanceStatusInput{}, []string{"IncludeManagedResources"}},
		{&ec2.DescribeInstancesInput{}, []string{"IncludeManagedResources"}},
		{&ec2.DescribeRegionsInput{}, nil},
		{&ec2.DescribeReplaceRootVolumeTasksInput{}, nil},
		{&ec2.DescribeSnapshotAttributeInput{SnapshotId: id, Attribute: "createVolumePermission"}, nil},
		{&ec2.DescribeSnapshotsInput{}, nil},
		{&ec2.DescribeSpotFleetRequestsInput{}, nil},
		{&ec2.DescribeSpotInstanceRequestsInput{}, nil},
		{&ec2.DescribeTagsInput{}, nil},
		{&ec2.DisableImageInput{ImageId: image}, nil},
		{&ec2.DisableImageDeprecationInput{ImageId: image}, nil},
		{&ec2.DisableImageDeregistrationProtectionInput{ImageId: image}, nil},
		{&ec2.EnableImageInput{ImageId: image}, nil},
		{&ec2.EnableImageDeprecationInput{ImageId: image, DeprecateAt: aws.Time(aws.ToTime(nil))}, nil},
		{&ec2.EnableImageDeregistrationProtectionInput{ImageId: image}, nil},
		{&ec2.GetConsoleOutputInput{InstanceId: instance}, nil},
		{&ec2.GetEbsDefaultKmsKeyIdInput{}, nil},
		{&ec2.GetEbsEncryptionByDefaultInput{}, nil},
		{&ec2.GetImageBlockPublicAccessStateInput{}, nil},
		{&ec2.GetInstanceUefiDataInput{InstanceId: instance}, nil},
		{&ec2.GetSnapshotBlockPublicAccessStateInput{}, nil},
		{&ec2.ImportSnapshotInput{DiskContainer: &ec2types.SnapshotDiskContainer{
			Format: aws.String("RAW"), UserBucket: &ec2types.UserBucket{S3Bucket: aws.String("b"), S3Key: aws.String("k")},
		}}, nil},
		{&ec2.ModifyImageAttributeInput{ImageId: image}, []string{"ProductCodes"}},
		{&ec2.LockSnapshotInput{SnapshotId: id, LockMode: "governance"}, nil},
		{&ec2.ModifySnapshotAttributeInput{SnapshotId: id}, nil},
		{&ec2.ModifySnapshotTierInput{SnapshotId: id}, nil},
		{imageInput("machine", *id), []string{"BillingProducts", "ImageLocation", "KernelId", "RamdiskId"}},
		{&ec2.RestoreSnapshotTierInput{SnapshotId: id}, nil},
		{&ec2.RunInstancesInput{ImageId: image, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}, strings.Fields(`
			AdditionalInfo BlockDeviceMappings CapacityReservationSpecification CpuOptions CreditSpecification DisableApiStop
			DisableApiTermination EbsOptimized ElasticGpuSpecification ElasticInferenceAccelerators EnablePrimaryIpv6 EnclaveOptions
			HibernationOptions InstanceMarketOptions Ipv6AddressCount Ipv6Addresses KernelId LaunchTemplate LicenseSpecifications
			MaintenanceOptions Monitoring NetworkInterfaces NetworkPerformanceOptions Operator Placement PrivateDnsNameOptions
			PrivateIpAddress RamdiskId SecondaryInterfaces SecurityGroups`)},
		{&ec2.TerminateInstancesInput{InstanceIds: []string{"i-0"}}, []string{"Force", "SkipOsShutdown"}},
		{&ec2.UnlockSnapshotInput{SnapshotId: id}, nil},
		{&ebs.StartSnapshotInput{VolumeSize: aws.Int64(1)}, nil},
	} {
		kind := reflect.TypeOf(test.input).Elem()
		operation := kind.Name()[:len(kind.Name())-len("Input")]
		client := reflect.ValueOf(c.ec2)
		if operation == "StartSnapshot" {
			client = reflect.ValueOf(c.ebs)
		}
		var unknown []string
		for i := range kind.NumField() {
			field := kind.Field(i)
			if !field.IsExported() {
				continue
			}
			in := reflect.New(kind)
			in.Elem().Set(reflect.ValueOf(test.input).Elem())
			if dry := in.Elem().FieldByName("DryRun"); dry.IsValid() {
				dry.Set(reflect.ValueOf(aws.Bool(true)))
			}
			if in.Elem().Field(i).IsZero() {
				in.Elem().Field(i).Set(something(field.Type))
			}
			out := client.MethodByName(operation).Call([]reflect.Value{reflect.ValueOf(c.ctx), in})
			err, _ := out[1].Interface().(error)
			requests := c.fake.Requests()
			if n := len(requests); n == 0 || requests[n-1].Operation != operation {
				t.Errorf("%s with %s was not sent: %v", operation, field.Name, err)
			}
			if code(err) == "UnknownParameter" || err != nil && strings.Contains(err.Error(), "unknown field") {
				unknown = append(unknown, field.Name)
			}
		}
		if !slices.Equal(unknown, test.unknown) {
			t.Errorf("%s: the fake does not know %v; expected %v", operation, unknown, test.unknown)
		}
	}
}

// something returns a value that is not zero, valid or not.
func something(kind reflect.Type) reflect.Value {
	v := reflect.New(kind).Elem()
	switch kind.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(kind.Elem()))
		v.Elem().Set(something(kind.Elem()))
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(1)
	case reflect.Slice:
		v.Set(reflect.Append(v, something(kind.Elem())))
	case reflect.Struct:
		for i := range kind.NumField() {
			if kind.Field(i).IsExported() && kind.PkgPath() != "time" {
				v.Field(i).Set(something(kind.Field(i).Type))
			}
		}
	}
	return v
}
