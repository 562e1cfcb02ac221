package bundle

import (
	"errors"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/slipway-build/slipway/internal/contract/runtimejson"
)

// addInterface adds an interface to the network namespace of the process pid.
// After a restart of a container, the interfaces of its old namespace may still
// be disappearing.
func addInterface(i runtimejson.Interface, pid int) error {
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		err := tryAddInterface(i, pid)
		if !errors.Is(err, unix.EEXIST) || time.Now().After(deadline) {
			return err
		}
	}
}

func tryAddInterface(i runtimejson.Interface, pid int) error {
	kind := i.Add
	if kind == "" && i.Peer != "" {
		kind = "veth"
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = i.Name
	switch {
	case kind == "":
		// an existing interface of the machine
	case kind == "veth":
		// The peer stays in the machine.
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: i.Peer}); err != nil {
			return err
		}
	case i.CreateInRoot:
		if err := netlink.LinkAdd(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind}); err != nil {
			return err
		}
	default:
		return addInNamespace(pid, &netlink.GenericLink{LinkAttrs: attrs, LinkType: kind})
	}
	link, err := netlink.LinkByName(i.Name)
	if err != nil {
		return err
	}
	return netlink.LinkSetNsPid(link, pid)
}

func addInNamespace(pid int, link netlink.Link) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	return inside.LinkAdd(link)
}
