# docker buildx bake          builds aws.yml into out/aws.raw
#
# The workflows beside this file call it, so that a build in CI is the one at your desk.

variable "CACHE" {
  description = "where the cache of builds is kept, without its mode: GitHub's where there is one; docs/how-to/share-caches.md has others"
  default     = "type=gha,scope=aws"
}

variable "SOURCE_DATE_EPOCH" {
  description = "time of the machine's files, in seconds since 1970; empty for a constant"
  default     = ""
}

target "default" {
  dockerfile = "aws.yml"
  target     = "raw"
  args       = { SIZE = "100M", SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH }
  output     = ["type=local,dest=out"]
  cache-from = [CACHE]
  # mode=max keeps every component's segment: after a change of one, the next builder packs that one alone.
  cache-to = ["${CACHE},mode=max,compression=zstd"]
}
