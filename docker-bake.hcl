# docker buildx bake packages     the package images
# docker buildx bake test-images  the frontend image and the package images, except docker
# docker buildx bake frontend     the frontend image
# docker buildx bake aws-images   the frontend image and the package images of examples/aws.yml
# docker buildx bake aws          the machine of examples/aws.yml, built from these images

variable "REGISTRY" {
  description = "Repository prefix of the images."
  default     = "docker.io/slipwaybuild"
}

variable "PLATFORMS" {
  description = "Comma-separated platforms of the package images: linux/amd64, linux/arm64. Builds do not emulate."
  default     = "linux/amd64"
}

# With a constant time, images are reproducible. Their output also requires
# rewrite-timestamp=true.
variable "SOURCE_DATE_EPOCH" {
  default = "0"
}

variable "DATE" {
  description = "Date of the pinned packages (yyyymmdd), for a second tag of each image."
  default     = ""
}

function "tags" {
  params = [image, version]
  result = concat(["${REGISTRY}/${image}:${version}"], DATE == "" ? [] : ["${REGISTRY}/${image}:${version}-${DATE}"])
}

variable "PUSH" {
  description = "Push the images to REGISTRY, reproducibly and with compressed layers."
  default     = false
}

# The layers of packages are zstd, which BuildKit unpacks faster. Those of the frontend
# are gzip: a builder that is too old for zstd can start the frontend, which says so.
function "output" {
  params = [compression]
  result = PUSH ? ["type=registry,rewrite-timestamp=true,compression=${compression},force-compression=true"] : []
}

variable "PACKAGES" {
  default = [
    "kernel", "modules", "init", "runc", "containerd", "ctr", "ca-certificates",
    "sysctl", "dhcpcd", "metadata", "rngd", "sshd", "getty",
    "chrony", "node_exporter", "nginx", "memlogd", "logwrite", "logship", "docker",
    "format", "mount", "extend", "swap", "losetup", "dm-crypt", "modprobe", "sysfs", "poweroff",
  ]
}

# The packages of examples/aws.yml.
variable "AWS_PACKAGES" {
  default = [
    "kernel", "init", "runc", "containerd", "ca-certificates", "sysctl", "dhcpcd", "metadata", "rngd", "sshd", "chrony",
  ]
}

group "default" {
  targets = ["frontend", "packages"]
}

# docker takes minutes to compile: make test-boot tests it.
group "test-images" {
  targets = concat(["frontend"], [for p in PACKAGES : p if p != "docker"])
}

group "aws-images" {
  targets = concat(["frontend"], AWS_PACKAGES)
}

target "frontend" {
  tags      = tags("slipway", "1")
  output    = output("gzip")
  platforms = ["linux/amd64"]
  args      = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
  attest    = ["type=provenance,disabled=true"]
}

target "packages" {
  name       = pkg
  matrix     = { pkg = PACKAGES }
  dockerfile = "packages/${pkg}/Dockerfile"
  tags       = tags(pkg, "v1")
  labels     = { "org.opencontainers.image.documentation" = "https://github.com/slipway-build/slipway/blob/main/packages/CHANGELOG.md" }
  output     = output("zstd")
  platforms  = split(",", PLATFORMS)
  args       = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
  attest     = ["type=provenance,disabled=true"]
}

# The contexts replace every image in the YAML, and the frontend, with those of this
# checkout.
target "aws" {
  dockerfile = "examples/aws.yml"
  target     = "raw"
  args       = { SIZE = "100M" }
  contexts = merge(
    { "slipwaybuild/slipway:1" = "target:frontend" },
    { for p in AWS_PACKAGES : "slipwaybuild/${p}:v1" => "target:${p}" },
  )
  output = ["type=local,dest=out"]
}
