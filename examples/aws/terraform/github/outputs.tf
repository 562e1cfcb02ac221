output "role" {
  description = "ARN of the role."
  value       = aws_iam_role.publish.arn
}
