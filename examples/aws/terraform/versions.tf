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

  import_tasks = "arn:${local.partition}:ec2:*:${local.account}:import-snapshot-task/*"
}
