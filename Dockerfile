# The frontend image, which a machine YAML names in its "# syntax=" line.

FROM --platform=$BUILDPLATFORM debian:trixie-slim AS loaders
RUN --mount=type=bind,source=hack/debian,target=/debian \
    /debian/get amd64 / grub-common grub-pc-bin libdevmapper1.02.1 systemd-boot-efi && /debian/get arm64 /arm64 systemd-boot-efi
COPY exporter/disk/loaders.sh /
# The origin and the licenses of the loaders. Debian has the sources of these
# versions.
RUN /loaders.sh /loaders /arm64 && \
    for package in grub-pc-bin systemd-boot-efi; do \
        cp -L "/usr/share/doc/$package/copyright" "/loaders/$package.copyright" && \
        awk -F ': ' '{ field[$1] = $2 } \
            END { split(field["Source"], source, "[ ()]+"); print source[1], source[2] ? source[2] : field["Version"], "(" field["Package"] ")" }' \
            "/var/lib/dpkg/status.d/$package" >>/loaders/VERSIONS || exit 1; \
    done && chmod 0644 /loaders/*

FROM --platform=$BUILDPLATFORM golang:1.26-trixie AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY cmd cmd
COPY exporter exporter
COPY frontend frontend
COPY internal/contract internal/contract
COPY internal/failure internal/failure
COPY internal/kernel internal/kernel
COPY internal/pemfile internal/pemfile
COPY internal/printable internal/printable
COPY internal/sbom internal/sbom
COPY internal/schema internal/schema
COPY internal/suggest internal/suggest
COPY internal/version internal/version
COPY llb llb
COPY machine machine
# Only the frontend knows the version of the release, because the cache key of every
# segment includes the bytes of the packer.
ARG TARGETARCH VERSION
ENV CGO_ENABLED=0 GOARCH=$TARGETARCH
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=cache,target=/go/pkg/mod \
    go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -o /out/ ./cmd/slipway-packer ./cmd/slipway-exporter ./cmd/slipway-sbom && \
    go build -trimpath -buildvcs=false -ldflags="-s -w -buildid= -X github.com/slipway-build/slipway/internal/version.number=$VERSION" -o /out/ ./cmd/slipway-frontend

# Scans images for their SBOM, for releases.
FROM scratch AS scanner
COPY --from=build /out/slipway-sbom /
ENTRYPOINT ["/slipway-sbom"]

FROM scratch
LABEL moby.buildkit.frontend.network.none="true"
LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts"
COPY --from=loaders /loaders /loaders
COPY --from=build /out/slipway-frontend /out/slipway-packer /out/slipway-exporter /out/slipway-sbom /
# The version of exporter/format: "slipway build" writes formats itself if it has the same.
LABEL build.slipway.formats="3"
# The cache of packed packages of a release and the digests of their images. See
# hack/release-cache.
ARG PACKED_CACHE="" PACKED_IMAGES=""
ENV SLIPWAY_CACHE=$PACKED_CACHE SLIPWAY_CACHE_IMAGES=$PACKED_IMAGES
ENTRYPOINT ["/slipway-frontend"]
