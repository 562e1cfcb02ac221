variable "region" {
  description = "Region to publish to and to start the machine in."
  type        = string
  default     = "us-east-1"
}

variable "ami" {
  description = "AMI to start, as slipway-publish has printed it; none is started without."
  type        = string
  default     = null
}

variable "public_key" {
  description = "Public ssh key that lets root in, such as the contents of ~/.ssh/id_ed25519.pub; needed with ami."
  type        = string
  default     = null
}

variable "ssh_from" {
  description = "Addresses that may connect by ssh, such as 203.0.113.7/32."
  type        = list(string)
  default     = []
}

variable "instance_type" {
  description = "t3.micro or another one for x86_64, t4g.micro or another one for arm64."
  type        = string
  default     = "t3.micro"
}

variable "bucket" {
  description = "Bucket to make for --method import; without, neither bucket nor vmimport role is made."
  type        = string
  default     = null
}
