output "ssh" {
  description = "Command to log in."
  value       = one([for machine in aws_instance.machine : "ssh root@${machine.public_ip}"])
}

output "policy_ebs" {
  description = "ARN of the policy for --method ebs."
  value       = aws_iam_policy.ebs.arn
}

output "policy_import" {
  description = "ARN of the policy for --method import."
  value       = one(aws_iam_policy.import[*].arn)
}

output "policy_deploy" {
  description = "ARN of the policy for slipway-publish aws deploy and --launch."
  value       = aws_iam_policy.deploy.arn
}

output "policy_cleanup" {
  description = "ARN of the policy for slipway-publish aws gc --keep-last."
  value       = aws_iam_policy.cleanup.arn
}

output "github_role" {
  description = "ARN of the role for GitHub's workflows, for the variable AWS_ROLE of examples/ci/github.yml."
  value       = one(module.github[*].role)
}
