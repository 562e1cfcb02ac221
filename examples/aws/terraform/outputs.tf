output "ssh" {
  description = "How to log in."
  value       = one([for machine in aws_instance.machine : "ssh root@${machine.public_ip}"])
}

output "policy_ebs" {
  description = "Policy for those who publish with --method ebs."
  value       = aws_iam_policy.ebs.arn
}

output "policy_import" {
  description = "Policy for those who publish with --method import."
  value       = one(aws_iam_policy.import[*].arn)
}
