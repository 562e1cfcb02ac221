# The role of the workflow in examples/ci/github.yml.
module "github" {
  count      = var.github_repository == null ? 0 : 1
  source     = "./github"
  repository = var.github_repository
  policies   = { ebs = aws_iam_policy.ebs.arn }
}
