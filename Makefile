# Start with `make demo`, which shows what Slipway does, and `make test`, which runs
# all tests. Both run as root on Debian and install what they need.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# The stack's registry takes the place of Docker Hub.
export REGISTRY ?= localhost:$(or $(STACK_PORT),5000)/slipwaybuild

# The dated tags of images have the date of hack/debian/lock.
export DATE ?= $(shell sed -n 's/^\# snapshot \(........\).*/\1/p' hack/debian/lock)

# The builder of the stack.
export BUILDX_BUILDER ?= slipway

# Builds images and pushes them to the stack's registry.
bake = PUSH=true docker buildx bake --builder $(BUILDX_BUILDER) --progress "$${PROGRESS:-auto}"

# Tests fail, instead of being skipped, if the machine lacks something.
test test-boot repro release-rehearsal: export SLIPWAY_TEST_ALL := 1

.PHONY: demo test test-boot fuzz lint vuln bench bench-short repro release-rehearsal stack images outdated

## demo: build examples/aws.yml, publish it to a fake of AWS, boot the published disk and log in by ssh
demo: stack
	$(bake) aws-images
	hack/debian-packages qemu-system-x86 ovmf
	go run ./hack/demo

## test: unit tests, and end-to-end tests with BuildKit and QEMU
test: images
	hack/debian-packages qemu-system-x86 ovmf qemu-system-arm qemu-efi-aarch64 swtpm tpm2-tools openssh-client python3 systemd python3-venv \
		cpio zstd xorriso squashfs-tools erofs-utils fdisk gdisk dosfstools mtools qemu-utils grub-common grub-pc-bin systemd-boot-efi \
		e2fsprogs xfsprogs btrfs-progs cryptsetup-bin sbsigntool efitools dnsmasq-base iproute2 rootlesskit uidmap containerd runc binutils file openssl softhsm2 opensc ipxe-qemu
	id slipway-rootless >/dev/null 2>&1 || useradd --no-create-home --shell /usr/sbin/nologin slipway-rootless
	echo 'FROM slipwaybuild/kernel:v1' | docker buildx build --builder $(BUILDX_BUILDER) --quiet -o .stack/kernel -
	hack/moto
	hack/firmware
	hack/spdx
	hack/engine
	cd hack/versitygw && CGO_ENABLED=0 go build -trimpath -o ../../.stack/ tool
	cd hack/oras && CGO_ENABLED=0 go build -trimpath -o ../../.stack/ tool
	cd hack/oldest && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../.stack/oldest/ tool
	go test -timeout 25m ./...

## test-boot: what make test does a part of: boots every format with every firmware that it supports, uses every example, boots the packages docker, kubelet and kernel-micro and the packages for arm64, builds on Docker Engine 29, breaks the network, kills 50 builders; LINUXKIT_IMAGES=DIR boots LinuxKit's own images too
test-boot: export PLATFORMS := linux/amd64,linux/arm64
test-boot: images
	PLATFORMS=linux/amd64 $(bake) docker kubelet kernel-micro
	hack/debian-packages gcc libc6-dev qemu-system-x86 ovmf qemu-system-arm qemu-efi-aarch64 swtpm openssh-client dosfstools mtools containerd runc tini dnsmasq-base iproute2 ipxe-qemu
	hack/engine 29
	go test -timeout 15m ./test -run TestNewEngine -boot
	go test -timeout 25m ./test -run 'TestFormats|TestMicroVM|TestPackages|TestRootFilesystems|TestVerityTampered|TestTrust|TestAWSArm64' -boot
	go test -timeout 25m ./test -run 'TestRun|TestLinuxKitStory' -boot
	go test -timeout 25m ./test -run 'TestShapesBoot|TestCustomize|TestContainerDisk|TestAWSDeploy' -boot
	go test -timeout 25m ./test -run 'TestHTTPBoot|TestChannelBoots|TestInstaller' -boot
	go test -timeout 25m ./exporter/disk -run 'TestSecureBoot|TestMeasured' -boot
	go test -timeout 25m ./test -run 'TestExamples|TestMemoryBudget' -boot
	hack/debian-packages libssl-dev pkg-config openssl
	cd hack/eif && CARGO_TARGET_DIR=../../.stack/eif cargo build --quiet --release --locked
	go test ./exporter/format ./test -run 'TestEIFLibrary|TestEnclaveImage' -eif "$$PWD/.stack/eif/release/eif"
	CARGO_TARGET_DIR=.stack/vsock/build cargo install --quiet --locked --version 0.3.0 --root .stack/vsock vhost-device-vsock
	go test ./test -run TestVsockLog -vsock "$$PWD/.stack/vsock/bin/vhost-device-vsock"
	go test -timeout 25m ./test/guest -run 'TestBoot|TestPolicy|TestServices|TestConsole|TestStorage|TestIPv6' -arch arm64
	go test -timeout 25m ./test/guest -run 'TestHealth|TestManyServices|TestLogs|TestNetworkRecovers|TestEscape|TestServices|TestInstructions|TestLinuxKitImages' -boot
	go test -timeout 25m ./test/faults -run TestKilledBuilder -kills 50
	hack/debian-packages chromium
	go test ./internal/image/report -run TestChromium -chromium
	cd guest/logship/testdata/otelcol && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../../../.stack/otelcol .
	go test ./guest/logship -run TestCollector -collector "$$PWD/.stack/otelcol"

## fuzz: run each fuzz target for FUZZTIME, 30s by default
fuzz:
	hack/debian-packages squashfs-tools erofs-utils xorriso
	hack/fuzz "$(or $(FUZZTIME),30s)"

## lint: gofmt, go vet, staticcheck, shellcheck
lint:
	hack/lint

## vuln: known vulnerabilities in what the programs link; needs access to vuln.go.dev
vuln:
	go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./cmd/... ./guest/...

## outdated: compare all pinned versions with those that are served now; UPDATE=1 pins these
outdated:
	go run ./hack/outdated $(if $(UPDATE),--update)

## bench: measure builds and their lower bounds, beside LinuxKit if LINUXKIT=PATH names it; BENCH='-run REGEXP -count N' selects cases, JSON=1 prints JSON
bench: stack
	$(bake) aws-images modules
	go run ./hack/bench $(BENCH)

## bench-short: compare builds with LinuxKit, or with a plain program, once, in two minutes
bench-short: stack
	$(bake) aws-images modules
	go run ./hack/bench -short

## repro: build all formats, the frontend and the packages with two different fresh builders and compare them
repro: images
	go test ./test -run TestReproducible -repro -v -timeout 90m

## release-rehearsal: build, push, sign and check a release in the stack's registry
release-rehearsal: images
	hack/debian-packages jq lintian rpm
	go test ./test -run TestRelease -release -v -timeout 90m

## stack: start buildkitd, a registry and a buildx builder on loopback; hack/stack down stops them
stack:
	hack/stack up

## images: build the frontend and the packages, except docker, kubelet and kernel-micro, and push them to the stack's registry
images: stack
	$(bake) test-images
