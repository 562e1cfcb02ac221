# docker buildx bake          builds aws.yml to out/aws.raw
#
# The CI workflows next to this file run the same command.

variable "CACHE" {
  description = "Build cache without its mode. Default: the cache of GitHub Actions. docs/how-to/share-caches.md lists others."
  default     = "type=gha,scope=aws"
}

variable "SOURCE_DATE_EPOCH" {
  description = "Time of the machine's files in seconds since 1970. Default: a constant."
  default     = ""
}

target "default" {
  dockerfile = "aws.yml"
  target     = "raw"
  # The default compression is for builds that are booted once. This disk is published.
  args       = { SIZE = "100M", COMPRESSION = "zstd:19", SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
  output     = ["type=local,dest=out"]
  cache-from = [CACHE]
  # mode=max keeps the segment of every component, so that a build repacks only
  # changed components.
  cache-to = ["${CACHE},mode=max,compression=zstd"]
}
