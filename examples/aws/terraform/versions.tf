terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100"
    }
  }
}

provider "aws" {
  region = var.region
}

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  snapshots = "arn:${local.partition}:ec2:*::snapshot/*"
  images    = "arn:${local.partition}:ec2:*::image/*"

  ec2          = "arn:${local.partition}:ec2:*:${local.account}"
  import_tasks = "${local.ec2}:import-snapshot-task/*"
  instances    = "${local.ec2}:instance/*"
  replacements = "${local.ec2}:replace-root-volume-task/*"
  volumes      = "${local.ec2}:volume/*"
}
