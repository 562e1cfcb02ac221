# The two commands: `make demo` does the main job, `make test` runs all tests.
# Both set up everything they need on a Debian machine as root.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# Where the stack's registry keeps what would otherwise be on Docker Hub.
export REGISTRY ?= localhost:$(or $(STACK_PORT),5000)/slipwaybuild

# The stack's builder.
export BUILDX_BUILDER ?= slipway

# Builds images into the stack's registry.
bake = docker buildx bake --builder $(BUILDX_BUILDER) --progress "$${PROGRESS:-auto}" \
	--set '*.output=type=registry,rewrite-timestamp=true,compression=zstd,force-compression=true'

.PHONY: demo test test-boot lint bench repro stack images

## demo: build examples/aws.yml with docker buildx, publish it to a fake of AWS, boot what is there, log in by ssh
demo: stack
	$(bake) aws-images
	hack/debian-packages qemu-system-x86 ovmf netcat-openbsd openssh-client
	go run ./hack/demo

## test: unit tests, and end-to-end tests against a real BuildKit and QEMU
test: images
	hack/debian-packages qemu-system-x86 ovmf qemu-system-arm qemu-efi-aarch64 netcat-openbsd openssh-client python3 python3-venv \
		cpio zstd xorriso squashfs-tools erofs-utils fdisk gdisk dosfstools mtools qemu-utils grub-common grub-pc-bin systemd-boot-efi \
		e2fsprogs xfsprogs btrfs-progs cryptsetup-bin rootlesskit uidmap
	id slipway-rootless >/dev/null 2>&1 || useradd --no-create-home --shell /usr/sbin/nologin slipway-rootless
	echo 'FROM slipwaybuild/kernel:v1' | docker buildx build --builder $(BUILDX_BUILDER) --quiet -o .stack/kernel -
	hack/moto up
	hack/spdx
	cd hack/versitygw && CGO_ENABLED=0 go build -trimpath -o ../../.stack/ tool
	cd hack/oldest && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../../.stack/oldest/ tool
	go test -timeout 25m ./...

## test-boot: boots every format under every firmware that it is for; make test boots a representative third of them; and packages for arm64
test-boot: export PLATFORMS := linux/amd64,linux/arm64
test-boot: images
	hack/debian-packages qemu-system-x86 ovmf qemu-system-arm qemu-efi-aarch64 netcat-openbsd openssh-client dosfstools mtools
	go test -timeout 25m ./test -run 'TestFormats|TestRootFilesystems|TestAWSArm64' -boot
	go test -timeout 25m ./test/guest -run 'TestBoot|TestPolicy|TestServices|TestConsole|TestStorage' -arch arm64

## lint: gofmt, go vet, staticcheck, shellcheck
lint:
	hack/lint

## bench: time builds beside what no build can beat; BENCH='-run REGEXP -count N' measures a part, JSON=1 prints JSON
bench: stack
	$(bake) aws-images
	go run ./hack/bench $(BENCH)

## repro: all formats, frontend and packages, each from two fresh builders that have little in common
repro: images
	go test ./test -run TestReproducible -repro -v -timeout 90m

## stack: buildkitd, registry and buildx builder on loopback
stack:
	hack/stack up

## images: frontend and packages, in the stack's registry
images: stack
	$(bake) frontend packages
