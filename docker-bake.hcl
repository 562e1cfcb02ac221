# docker buildx bake packages     the package images
# docker buildx bake test-images  the frontend image and the package images, except docker, kubelet and kernel-micro
# docker buildx bake frontend     the frontend image
# docker buildx bake aws-images   the frontend image and the package images of examples/aws.yml
# docker buildx bake aws          the machine of examples/aws.yml, built from these images
# docker buildx bake scanner      the SBOM scanner, which a release requires in REGISTRY
# docker buildx bake release      all images for all platforms, and the files to download

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

variable "VERSION" {
  description = "Version of a release, for example 1.2.3. Images then are for all platforms and have SBOM, provenance and labels."
  default     = ""
}

variable "REVISION" {
  description = "Commit of a release."
  default     = ""
}

variable "COMMIT_TIME" {
  description = "Time of the files of a release, in seconds since 1970. Images keep SOURCE_DATE_EPOCH, so that a release does not change layers with the same contents."
  default     = "0"
}

variable "PROGRAMS" {
  description = "Comma-separated platforms of the programs of a release."
  default     = "linux/amd64,linux/arm64,darwin/amd64,darwin/arm64,windows/amd64,windows/arm64"
}

# A pre-release such as 1.2.3-rc.1 moves no tag. 1.2.3 also moves 1.2, 1 and the tag
# that YAML names: slipway:1, sshd:v1.
function "tags" {
  params = [image, yml]
  result = [for tag in distinct(concat(
    VERSION == "" ? [yml] : [VERSION],
    VERSION == "" || prerelease() ? [] : [join(".", slice(split(".", VERSION), 0, 2)), major(), replace(yml, "1", major())],
    DATE == "" || prerelease() ? [] : ["${VERSION == "" ? yml : replace(yml, "1", major())}-${DATE}"],
  )) : "${REGISTRY}/${image}:${tag}"]
}

function "prerelease" {
  params = []
  result = length(regexall("-", VERSION)) > 0
}

function "major" {
  params = []
  result = split(".", VERSION)[0]
}

function "labels" {
  params = [image, description]
  result = merge(
    { "org.opencontainers.image.documentation" = "https://github.com/slipway-build/slipway/blob/main/packages/CHANGELOG.md" },
    VERSION == "" ? {} : {
      "org.opencontainers.image.title"       = image
      "org.opencontainers.image.description" = description
      "org.opencontainers.image.version"     = VERSION
      "org.opencontainers.image.revision"    = REVISION
      "org.opencontainers.image.source"      = "https://github.com/slipway-build/slipway"
      "org.opencontainers.image.url"         = "https://github.com/slipway-build/slipway"
      "org.opencontainers.image.vendor"      = "Slipway"
    },
  )
}

# Slipway's own scanner finds what the SBOM of a machine lists.
function "attestations" {
  params = []
  result = VERSION == "" ? ["type=provenance,disabled=true"] : ["type=provenance,mode=max", "type=sbom,generator=${REGISTRY}/sbom-scanner:${VERSION}"]
}

function "platforms" {
  params = [development]
  result = VERSION == "" ? split(",", development) : ["linux/amd64", "linux/arm64"]
}

variable "PACKED_CACHE" {
  description = "Cache of packed packages that the frontend uses, with a digest. Set by hack/release-cache."
  default     = ""
}

variable "PACKED_IMAGES" {
  description = "Comma-separated digests of the images of these packages."
  default     = ""
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
    "kernel", "kernel-micro", "modules", "init", "runc", "containerd", "ctr", "ca-certificates",
    "sysctl", "dhcpcd", "metadata", "rngd", "sshd", "getty",
    "chrony", "node_exporter", "nginx", "memlogd", "logwrite", "logship", "docker", "kubelet",
    "format", "mount", "extend", "swap", "losetup", "dm-crypt", "attest", "modprobe", "sysfs", "enclaves", "poweroff", "nftables", "wireguard", "installer",
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

# docker, kubelet and kernel-micro take minutes to compile: make test-boot tests them.
group "test-images" {
  targets = concat(["frontend"], [for p in PACKAGES : p if !contains(["docker", "kubelet", "kernel-micro"], p)])
}

group "aws-images" {
  targets = concat(["frontend"], AWS_PACKAGES)
}

group "release" {
  targets = ["frontend", "packages", "files"]
}

target "frontend" {
  tags      = tags("slipway", "1")
  labels    = VERSION == "" ? {} : labels("slipway", "BuildKit frontend for bootable immutable Linux machines")
  output    = output("gzip")
  platforms = platforms("linux/amd64")
  args      = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH, VERSION = VERSION, PACKED_CACHE = PACKED_CACHE, PACKED_IMAGES = PACKED_IMAGES }
  attest    = attestations()
}

target "scanner" {
  target    = "scanner"
  tags      = tags("sbom-scanner", "1")
  labels    = labels("sbom-scanner", "SBOM scanner of Slipway")
  output    = output("gzip")
  platforms = platforms("linux/amd64")
  args      = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
  attest    = ["type=provenance,disabled=true"]
}

# The programs, packages for distributions, and their checksums.
target "files" {
  dockerfile = "hack/release/Dockerfile"
  args       = { VERSION = VERSION, PLATFORMS = PROGRAMS, SOURCE_DATE_EPOCH = COMMIT_TIME }
  output     = ["type=local,dest=out/release"]
  attest     = ["type=provenance,disabled=true"]
}

target "packages" {
  name       = pkg
  matrix     = { pkg = PACKAGES }
  dockerfile = "packages/${pkg}/Dockerfile"
  tags       = tags(pkg, "v1")
  labels     = labels(pkg, "Package ${pkg} for Slipway machines")
  output     = output("zstd")
  platforms  = platforms(PLATFORMS)
  args       = { SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
  attest     = attestations()
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
