variable "region" {
  description = "Region of the AMI and the instance."
  type        = string
  default     = "us-east-1"
}

variable "ami" {
  description = "AMI to start, as printed by slipway-publish. Default: none."
  type        = string
  default     = null
}

variable "public_key" {
  description = "Public SSH key of root, for example the contents of ~/.ssh/id_ed25519.pub. Required with ami."
  type        = string
  default     = null
}

variable "ssh_from" {
  description = "CIDR blocks that may connect by SSH, for example 203.0.113.7/32."
  type        = list(string)
  default     = []
}

variable "instance_type" {
  description = "Instance type of the AMI's architecture, for example t3.micro for x86_64 or t4g.micro for arm64."
  type        = string
  default     = "t3.micro"
}

variable "bucket" {
  description = "Name of a new bucket for --method import. Default: no bucket and no vmimport role."
  type        = string
  default     = null
}

variable "kms_keys" {
  description = "ARNs of the keys for --kms-key. Default: none."
  type        = list(string)
  default     = []
}

variable "github_repository" {
  description = "GitHub repository, as OWNER/NAME, whose workflows may publish. Default: none."
  type        = string
  default     = null
}
