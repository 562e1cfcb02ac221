//go:build !amd64

package main

import "context"

// fetchVMware finds nothing, because the interface of the hypervisor exists
// only on x86.
func fetchVMware(context.Context, *client, string) (*instance, error) { return nil, errAbsent }
