# The permissions of slipway-publish. Attach one of the policies to the user or role
# that publishes.

# Both methods: find, register, copy, share and remove images and their snapshots.
# slipway-publish tags everything that it makes with slipway:token. It may change
# and remove only what has that tag.
data "aws_iam_policy_document" "images" {
  statement {
    sid = "Describe"
    actions = [
      "ec2:DescribeImages", "ec2:DescribeImageAttribute", "ec2:DescribeSnapshots",
      "ec2:GetEbsEncryptionByDefault", "ec2:GetEbsDefaultKmsKeyId",
      "ec2:ListImagesInRecycleBin", "ec2:ListSnapshotsInRecycleBin",
      "ec2:GetImageBlockPublicAccessState", "ec2:GetSnapshotBlockPublicAccessState",
    ]
    resources = ["*"]
  }
  statement {
    sid       = "Create"
    actions   = ["ec2:RegisterImage", "ec2:CopyImage"]
    resources = [local.images, local.snapshots]
  }
  statement {
    sid       = "TagOnCreation"
    actions   = ["ec2:CreateTags"]
    resources = [local.images, local.snapshots, local.import_tasks]
    condition {
      test     = "StringEquals"
      variable = "ec2:CreateAction"
      values   = ["RegisterImage", "CopyImage", "ImportSnapshot", "StartSnapshot"]
    }
  }
  statement {
    sid = "ChangeOurOwn"
    actions = [
      "ec2:DeregisterImage", "ec2:DeleteSnapshot", "ec2:ModifyImageAttribute",
      "ec2:ModifySnapshotAttribute", "ec2:EnableImageDeprecation", "ec2:CreateTags",
      "ec2:EnableImageDeregistrationProtection", "ec2:DisableImageDeregistrationProtection",
    ]
    resources = [local.images, local.snapshots]
    condition {
      test     = "Null"
      variable = "aws:ResourceTag/slipway:token"
      values   = ["false"]
    }
  }
  # For --ssm-parameter, and to start instances by the name of the parameter.
  statement {
    sid       = "Parameter"
    actions   = ["ssm:GetParameter", "ssm:GetParameters", "ssm:PutParameter", "ssm:DeleteParameter"]
    resources = ["arn:${local.partition}:ssm:*:${local.account}:parameter/slipway/*"]
  }
  # For --kms-key.
  dynamic "statement" {
    for_each = length(var.kms_keys) == 0 ? [] : [var.kms_keys]
    content {
      sid = "Keys"
      actions = [
        "kms:DescribeKey", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*",
      ]
      resources = statement.value
    }
  }
  dynamic "statement" {
    for_each = length(var.kms_keys) == 0 ? [] : [var.kms_keys]
    content {
      sid       = "Grants"
      actions   = ["kms:CreateGrant"]
      resources = statement.value
      condition {
        test     = "Bool"
        variable = "kms:GrantIsForAWSResource"
        values   = ["true"]
      }
    }
  }
}

# --method ebs requires no bucket or role. --parent and verify use the last two actions.
data "aws_iam_policy_document" "ebs" {
  source_policy_documents = [data.aws_iam_policy_document.images.json]
  statement {
    sid = "Blocks"
    actions = [
      "ebs:StartSnapshot", "ebs:PutSnapshotBlock", "ebs:CompleteSnapshot",
      "ebs:ListSnapshotBlocks", "ebs:GetSnapshotBlock",
    ]
    resources = [local.snapshots]
  }
}

resource "aws_iam_policy" "ebs" {
  name        = "slipway-publish-ebs"
  description = "slipway-publish aws --method ebs"
  policy      = data.aws_iam_policy_document.ebs.json
}

# --method import requires a bucket in the same region and a role for EC2 to read it.
resource "aws_s3_bucket" "disks" {
  count  = var.bucket == null ? 0 : 1
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "disks" {
  count                   = var.bucket == null ? 0 : 1
  bucket                  = aws_s3_bucket.disks[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# slipway-publish deletes its uploads. The rule covers runs that could not.
resource "aws_s3_bucket_lifecycle_configuration" "disks" {
  count  = var.bucket == null ? 0 : 1
  bucket = aws_s3_bucket.disks[0].id
  rule {
    id     = "leftovers"
    status = "Enabled"
    filter {
      prefix = "slipway-publish/"
    }
    expiration {
      days = 2
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

data "aws_iam_policy_document" "vmimport_trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["vmie.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "sts:ExternalId"
      values   = ["vmimport"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
  }
}

resource "aws_iam_role" "vmimport" {
  count              = var.bucket == null ? 0 : 1
  name               = "vmimport"
  assume_role_policy = data.aws_iam_policy_document.vmimport_trust.json
}

data "aws_iam_policy_document" "vmimport" {
  count = var.bucket == null ? 0 : 1
  statement {
    actions   = ["s3:GetBucketLocation", "s3:ListBucket"]
    resources = [aws_s3_bucket.disks[0].arn]
  }
  statement {
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.disks[0].arn}/*"]
  }
  statement {
    actions   = ["ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:Describe*"]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "vmimport" {
  count  = var.bucket == null ? 0 : 1
  name   = "vmimport"
  role   = aws_iam_role.vmimport[0].id
  policy = data.aws_iam_policy_document.vmimport[0].json
}

data "aws_iam_policy_document" "import" {
  count                   = var.bucket == null ? 0 : 1
  source_policy_documents = [data.aws_iam_policy_document.images.json]
  statement {
    sid       = "Bucket"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads"]
    resources = [aws_s3_bucket.disks[0].arn]
  }
  statement {
    sid       = "Objects"
    actions   = ["s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.disks[0].arn}/slipway-publish/*"]
  }
  statement {
    sid       = "Import"
    actions   = ["ec2:ImportSnapshot", "ec2:DescribeImportSnapshotTasks", "ec2:CancelImportTask"]
    resources = ["*"]
  }
  # ImportSnapshot cannot tag its snapshot.
  statement {
    sid       = "TagImported"
    actions   = ["ec2:CreateTags"]
    resources = [local.snapshots]
    condition {
      test     = "Null"
      variable = "aws:RequestTag/slipway:token"
      values   = ["false"]
    }
  }
  statement {
    sid       = "Role"
    actions   = ["iam:GetRole"]
    resources = [aws_iam_role.vmimport[0].arn]
  }
  statement {
    sid       = "PassRole"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.vmimport[0].arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["vmie.amazonaws.com"]
    }
  }
}

resource "aws_iam_policy" "import" {
  count       = var.bucket == null ? 0 : 1
  name        = "slipway-publish-import"
  description = "slipway-publish aws --method import"
  policy      = data.aws_iam_policy_document.import[0].json
}
