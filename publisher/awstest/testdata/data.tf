# The data sources of the Terraform provider that find a published machine.
terraform {
  required_providers { aws = { source = "hashicorp/aws", version = ">= 5.100" } }
}
provider "aws" {}
data "aws_caller_identity" "current" {}
data "aws_region" "current" {}
data "aws_regions" "all" {}
data "aws_ami" "machine" {
  owners      = ["self"]
  most_recent = true
  filter {
    name   = "name"
    values = ["machine*"]
  }
}
data "aws_ebs_snapshot" "root" {
  owners       = ["self"]
  most_recent  = true
  snapshot_ids = [for d in data.aws_ami.machine.block_device_mappings : d.ebs.snapshot_id]
}
data "aws_ssm_parameter" "machine" { name = "/slipway/machine" }
data "aws_instances" "running" { instance_state_names = ["running"] }
data "aws_ebs_volumes" "roots" {
  filter {
    name   = "attachment.instance-id"
    values = data.aws_instances.running.ids
  }
}
data "aws_ebs_volume" "root" {
  filter {
    name   = "volume-id"
    values = data.aws_ebs_volumes.roots.ids
  }
}
output "root" { value = data.aws_ebs_volume.root.snapshot_id }
output "account" { value = data.aws_caller_identity.current.account_id }
output "ami" { value = data.aws_ami.machine.id }
output "snapshot" { value = data.aws_ebs_snapshot.root.id }
output "parameter" { value = nonsensitive(data.aws_ssm_parameter.machine.value) }
output "instances" { value = join(",", data.aws_instances.running.ids) }
output "regions" { value = length(data.aws_regions.all.names) }
