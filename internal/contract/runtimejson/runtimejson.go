// Package runtimejson is the form of runtime.json, the file of a bundle that
// says what the init prepares before it starts the container. It is the section
// "runtime" of LinuxKit's machine YAML.
package runtimejson

import specs "github.com/opencontainers/runtime-spec/specs-go"

// DefaultNamespace is the containerd namespace of services that name no other.
const DefaultNamespace = "services.linuxkit"

// Runtime is the content of runtime.json. The init mounts, makes the
// directories, then the cgroups; after the container is created, it adds the
// interfaces and binds the namespaces.
type Runtime struct {
	Cgroups    []string          `json:"cgroups"`
	Mounts     []specs.Mount     `json:"mounts"` // in the machine; a relative destination is below the container's root filesystem
	Mkdir      []string          `json:"mkdir"`  // likewise
	Interfaces []Interface       `json:"interfaces"`
	BindNS     map[string]string `json:"bindNS"` // kind of namespace, as in /proc/PID/ns, to the path on which it is bound; empty: not bound
	Namespace  string            `json:"namespace,omitempty"`
}

// Interface is a network interface for the container. Without Add and Peer, an
// interface of the machine is moved into the container.
type Interface struct {
	Name         string `json:"name,omitempty"`
	Add          string `json:"add,omitempty"`  // type of a new interface
	Peer         string `json:"peer,omitempty"` // other end of a new veth pair, which stays in the machine
	CreateInRoot bool   `json:"createInRoot"`   // make it in the network namespace of the machine, then move it
}
