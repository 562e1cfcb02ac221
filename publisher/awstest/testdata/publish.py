# Publishes a disk of two blocks by both roads with boto3, the AWS SDK of another language, and prints the AMIs.
import base64, hashlib, os, tempfile

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

BLOCK = 512 * 1024
blocks = {0: b"\x01" * BLOCK, 7: b"\x02" * BLOCK}

print("account", boto3.client("sts").get_caller_identity()["Account"])
print("role", boto3.client("iam").get_role(RoleName="vmimport")["Role"]["RoleName"])

ebs, ec2 = boto3.client("ebs"), boto3.client("ec2")
snapshot = ebs.start_snapshot(VolumeSize=1, Tags=[{"Key": "Name", "Value": "boto"}])["SnapshotId"]
digests = b""
for index, data in sorted(blocks.items()):
    digest = hashlib.sha256(data).digest()
    digests += digest
    ebs.put_snapshot_block(SnapshotId=snapshot, BlockIndex=index, BlockData=data, DataLength=BLOCK,
                           Checksum=base64.b64encode(digest).decode(), ChecksumAlgorithm="SHA256")
ebs.complete_snapshot(SnapshotId=snapshot, ChangedBlocksCount=len(blocks), ChecksumAlgorithm="SHA256", ChecksumAggregationMethod="LINEAR",
                      Checksum=base64.b64encode(hashlib.sha256(digests).digest()).decode())
ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot])


def register(name, snapshot):
    image = ec2.register_image(
        Name=name, Architecture="arm64", VirtualizationType="hvm", RootDeviceName="/dev/xvda", EnaSupport=True, BootMode="uefi",
        BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot, "VolumeType": "gp3"}}],
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "Name", "Value": name}]}])["ImageId"]
    ec2.get_waiter("image_available").wait(ImageIds=[image])
    described = ec2.describe_images(Owners=["self"], Filters=[{"Name": "tag:Name", "Values": [name]}])["Images"][0]
    print(described["Name"], described["Architecture"], described["State"], described["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
    boto3.client("ssm").put_parameter(Name="/boto/" + name, Value=image, Type="String", DataType="aws:ec2:image")


register("ebs", snapshot)

s3 = boto3.client("s3")
s3.create_bucket(Bucket="disks")
with tempfile.NamedTemporaryFile() as file:
    file.truncate(20 * BLOCK)
    for index, data in blocks.items():
        file.seek(index * BLOCK)
        file.write(data)
    file.flush()
    s3.upload_file(file.name, "disks", "disk.raw", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
task = ec2.import_snapshot(DiskContainer={"Format": "RAW", "UserBucket": {"S3Bucket": "disks", "S3Key": "disk.raw"}})["ImportTaskId"]
detail = ec2.describe_import_snapshot_tasks(ImportTaskIds=[task])["ImportSnapshotTasks"][0]["SnapshotTaskDetail"]
s3.delete_object(Bucket="disks", Key="disk.raw")
register("import", detail["SnapshotId"])

try:
    register("import", detail["SnapshotId"])
except ClientError as error:
    print(error.response["Error"]["Code"])
