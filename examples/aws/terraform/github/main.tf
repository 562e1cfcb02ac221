# A role that workflows of one GitHub repository assume with OIDC, so that no key is
# stored. GitHub signs a token that names the repository and the branch, tag or
# environment, and AWS gives credentials for an hour in exchange.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100"
    }
  }
}

locals {
  issuer = "token.actions.githubusercontent.com"
}

# An account has one provider per issuer.
resource "aws_iam_openid_connect_provider" "github" {
  count          = var.provider_arn == null ? 1 : 0
  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [coalesce(var.provider_arn, one(aws_iam_openid_connect_provider.github[*].arn))]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringLike"
      variable = "${local.issuer}:sub"
      values   = [for subject in var.subjects : "repo:${var.repository}:${subject}"]
    }
  }
}

resource "aws_iam_role" "publish" {
  name               = var.name
  description        = "slipway-publish in the workflows of ${var.repository}"
  assume_role_policy = data.aws_iam_policy_document.trust.json
}

resource "aws_iam_role_policy_attachment" "publish" {
  for_each   = var.policies
  role       = aws_iam_role.publish.name
  policy_arn = each.value
}
