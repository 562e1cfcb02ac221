# One instance in the default VPC. Root logs in with the key of the key pair, which
# the machine reads from the instance metadata service.

resource "aws_key_pair" "login" {
  count           = var.ami == null ? 0 : 1
  key_name_prefix = "slipway-"
  public_key      = var.public_key
}

resource "aws_security_group" "machine" {
  count       = var.ami == null ? 0 : 1
  name_prefix = "slipway-"
  description = "SSH to a Slipway machine"
}

resource "aws_vpc_security_group_ingress_rule" "ssh" {
  for_each          = var.ami == null ? toset([]) : toset(var.ssh_from)
  security_group_id = aws_security_group.machine[0].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 22
  to_port           = 22
}

resource "aws_vpc_security_group_egress_rule" "all" {
  count             = var.ami == null ? 0 : 1
  security_group_id = aws_security_group.machine[0].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}

resource "aws_instance" "machine" {
  count                       = var.ami == null ? 0 : 1
  ami                         = var.ami
  instance_type               = var.instance_type
  key_name                    = aws_key_pair.login[0].key_name
  vpc_security_group_ids      = [aws_security_group.machine[0].id]
  associate_public_ip_address = true
  metadata_options {
    http_tokens = "required"
  }
  tags = {
    Name = "slipway"
  }
}
