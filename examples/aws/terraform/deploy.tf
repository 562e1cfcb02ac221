# The permissions of slipway-publish aws deploy, and of --launch of slipway-publish
# aws. Attach the policy in addition to one of those in publish.tf.

data "aws_iam_policy_document" "deploy" {
  statement {
    sid = "Describe"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeInstances", "ec2:DescribeInstanceStatus",
      "ec2:DescribeReplaceRootVolumeTasks", "ec2:DescribeVolumes",
    ]
    resources = ["*"]
  }

  # --launch: instances of images that slipway-publish made, which get the tag
  # slipway:launch. Only those can be terminated and their consoles be read.
  statement {
    sid       = "LaunchImage"
    actions   = ["ec2:RunInstances"]
    resources = [local.images, local.snapshots]
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/slipway:token"
      values   = ["false"]
    }
  }
  statement {
    sid       = "LaunchTagged"
    actions   = ["ec2:RunInstances"]
    resources = [local.instances, local.volumes]
    condition {
      test     = "Null"
      variable = "aws:RequestTag/slipway:launch"
      values   = ["false"]
    }
  }
  statement {
    sid       = "LaunchNetwork"
    actions   = ["ec2:RunInstances"]
    resources = [for kind in ["network-interface", "security-group", "subnet"] : "${local.ec2}:${kind}/*"]
  }
  statement {
    sid       = "TagOnCreation"
    actions   = ["ec2:CreateTags"]
    resources = [local.instances, local.volumes, local.replacements]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RunInstances", "CreateReplaceRootVolumeTask"]
    }
  }
  statement {
    sid       = "Launched"
    actions   = ["ec2:GetConsoleOutput", "ec2:TerminateInstances"]
    resources = [local.instances]
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/slipway:launch"
      values   = ["false"]
    }
  }

  # --instance. Restrict the instances by a tag of your own.
  statement {
    sid       = "Replace"
    actions   = ["ec2:CreateReplaceRootVolumeTask"]
    resources = [local.images, local.instances, local.replacements, local.snapshots, local.volumes]
  }

  # --ssm-parameter.
  statement {
    sid       = "Parameter"
    actions   = ["ssm:GetParameter", "ssm:PutParameter"]
    resources = ["arn:${local.partition}:ssm:*:${local.account}:parameter/slipway/*"]
  }
}

resource "aws_iam_policy" "deploy" {
  name        = "slipway-publish-deploy"
  description = "slipway-publish aws deploy, and slipway-publish aws --launch"
  policy      = data.aws_iam_policy_document.deploy.json
}
