package frontend

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"strings"
	"syscall"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/gateway/client"

	graph "github.com/slipway-build/slipway/llb"
)

// probeName is the name of the device node in the archive of [deviceProbe].
const probeName = "device"

// keepsDevices reports whether the builder creates the device nodes of images.
// A builder in a user namespace cannot, and skips those of images silently.
func (r *request) keepsDevices(ctx context.Context) bool {
	if running, err := r.runningFrontend(); err == nil && running != nil && initialUserNamespace() {
		return true // the builder is in the namespace of this container
	}
	// In another namespace, the container says nothing about the builder, for
	// example a Docker Engine with userns-remap. So let the builder unpack a
	// device node.
	st, err := deviceProbe()
	if err != nil {
		return true
	}
	ref, err := r.solve(ctx, st)
	if err != nil {
		return true // only a warning depends on it
	}
	_, err = ref.StatFile(ctx, client.StatRequest{Path: probeName})
	return err == nil || !isNotFound(err) && !strings.Contains(err.Error(), syscall.EPERM.Error())
}

// unpacks reports whether the builder unpacks images of registries.
func unpacks(all images, layouts map[string]graph.ImageLayout) bool {
	for _, l := range layouts {
		if len(l.Unpacked) > 0 {
			return true
		}
	}
	for _, i := range all {
		if i.named != nil {
			return true
		}
	}
	return false
}

// deviceProbe returns a state for which the builder unpacks an archive with a
// device node.
func deviceProbe() (llb.State, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	// The null device.
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeChar, Name: probeName, Mode: 0o666, Devmajor: 1, Devminor: 3}); err != nil {
		return llb.State{}, err
	}
	if err := w.Close(); err != nil {
		return llb.State{}, err
	}
	name := llb.WithCustomName("[internal] create a device node, which fails on rootless builders")
	packed := llb.Scratch().File(llb.Mkfile("/probe.tar", 0o644, archive.Bytes()), name)
	return llb.Scratch().File(llb.Copy(packed, "/probe.tar", "/", &llb.CopyInfo{AttemptUnpack: true}), name), nil
}

// initialUserNamespace reports whether this process is in the initial user
// namespace. Only that maps all 2³²-1 users.
func initialUserNamespace() bool {
	users, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && bytes.Equal(bytes.Join(bytes.Fields(users), []byte(" ")), []byte("0 0 4294967295"))
}
