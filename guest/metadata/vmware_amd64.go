package main

import (
	"context"

	"github.com/vmware/vmw-guestinfo/rpcvmx"
)

// fetchVMware speaks to the hypervisor through an I/O port that it opens to every program; on other machines that would be a fault.
func fetchVMware(_ context.Context, _ *client, root string) (*instance, error) {
	if !onVMware(readPlatform(root)) {
		return nil, errAbsent
	}
	config := rpcvmx.NewConfig()
	return fetchGuestInfo(func(key string) (string, error) { return config.String(key[len("guestinfo."):], "") })
}
