variable "repository" {
  description = "Repository whose workflows may assume the role, as OWNER/NAME."
  type        = string
  validation {
    condition     = can(regex("^[A-Za-z0-9._-]+/[A-Za-z0-9._-]+$", var.repository))
    error_message = "The repository must be OWNER/NAME, without wildcards."
  }
}

variable "subjects" {
  description = "What may assume the role, in the form of the end of the token's subject. Default: the branch main and all tags."
  type        = list(string)
  default     = ["ref:refs/heads/main", "ref:refs/tags/*"]
}

variable "policies" {
  description = "ARNs of the policies of the role, by any name."
  type        = map(string)
}

variable "name" {
  description = "Name of the role."
  type        = string
  default     = "slipway-publish-github"
}

variable "provider_arn" {
  description = "ARN of the account's OIDC provider for GitHub, if it exists. Default: create it."
  type        = string
  default     = null
}
