# The frontend image, which a machine YAML names in its "# syntax=" line.

FROM debian:bookworm-slim AS loaders
RUN dpkg --add-architecture arm64 && apt-get update && \
    apt-get install -y --no-install-recommends grub-common grub-pc-bin systemd-boot-efi && \
    apt-get download systemd-boot-efi:arm64 && dpkg -x systemd-boot-efi_*_arm64.deb /arm64
COPY exporter/disk/loaders.sh /
RUN /loaders.sh /loaders /arm64

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
COPY cmd cmd
COPY exporter exporter
COPY frontend frontend
COPY internal/contract internal/contract
COPY internal/failure internal/failure
COPY internal/kernel internal/kernel
COPY internal/printable internal/printable
COPY internal/sbom internal/sbom
COPY internal/schema internal/schema
COPY internal/suggest internal/suggest
COPY internal/version internal/version
COPY llb llb
COPY machine machine
# Only the frontend knows the version of the release, because the cache key of every
# segment includes the bytes of the packer.
ENV CGO_ENABLED=0
ARG VERSION
RUN --mount=type=cache,target=/root/.cache/go-build --mount=type=cache,target=/go/pkg/mod \
    go build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -o /out/ ./cmd/slipway-packer ./cmd/slipway-exporter ./cmd/slipway-sbom && \
    go build -trimpath -buildvcs=false -ldflags="-s -w -buildid= -X github.com/slipway-build/slipway/internal/version.number=$VERSION" -o /out/ ./cmd/slipway-frontend

FROM scratch
LABEL moby.buildkit.frontend.network.none="true"
LABEL moby.buildkit.frontend.caps="moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts"
COPY --from=loaders /loaders /loaders
COPY --from=build /out/slipway-frontend /out/slipway-packer /out/slipway-exporter /out/slipway-sbom /
ENTRYPOINT ["/slipway-frontend"]
