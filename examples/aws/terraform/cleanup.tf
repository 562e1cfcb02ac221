# The permissions of slipway-publish aws gc --keep-last: read what uses images, and
# remove images and snapshots that slipway-publish made.

data "aws_iam_policy_document" "cleanup" {
  statement {
    sid = "Describe"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeLaunchTemplates",
      "ec2:DescribeLaunchTemplateVersions", "ec2:DescribeSnapshots", "ec2:DescribeSpotFleetRequests",
      "ec2:DescribeSpotInstanceRequests",
      "ssm:DescribeParameters",
      "ec2:ListImagesInRecycleBin", "ec2:ListSnapshotsInRecycleBin",
      "autoscaling:DescribeAutoScalingGroups", "autoscaling:DescribeLaunchConfigurations",
    ]
    resources = ["*"]
  }
  # Any parameter may name an image. The values of SecureString are not read.
  statement {
    sid       = "Parameters"
    actions   = ["ssm:GetParameters"]
    resources = ["arn:${local.partition}:ssm:*:${local.account}:parameter/*"]
  }
  statement {
    sid       = "Remove"
    actions   = ["ec2:DeregisterImage", "ec2:DeleteSnapshot"]
    resources = [local.images, local.snapshots]
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/slipway:token"
      values   = ["false"]
    }
  }
}

resource "aws_iam_policy" "cleanup" {
  name        = "slipway-publish-cleanup"
  description = "slipway-publish aws gc --keep-last"
  policy      = data.aws_iam_policy_document.cleanup.json
}
