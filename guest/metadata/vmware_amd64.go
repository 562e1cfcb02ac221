package main

import (
	"context"

	"github.com/vmware/vmw-guestinfo/rpcvmx"
)

// fetchVMware calls the hypervisor through an I/O port, which VMware opens to
// every program. On other machines that would crash the program.
func fetchVMware(_ context.Context, _ *client, root string) (*instance, error) {
	if !onVMware(readPlatform(root)) {
		return nil, errAbsent
	}
	config := rpcvmx.NewConfig()
	return fetchGuestInfo(func(key string) (string, error) { return config.String(key[len("guestinfo."):], "") })
}
