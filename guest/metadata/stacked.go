package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Kinds of interfaces that are made of others.
const (
	kindBond   = "bond"
	kindBridge = "bridge"
	kindVLAN   = "vlan"
)

// A network is what the links to configure are in the kernel.
type network struct {
	kernel *netlink.Handle
	links  []link
	nics   []netlink.Link // by the index of the link; nil if it does not exist
}

func newNetwork(kernel *netlink.Handle, links []link) *network {
	return &network{kernel, links, make([]netlink.Link, len(links))}
}

// findAll finds the interfaces that exist. It is no error if one does not that
// has no addresses.
func (n *network) findAll() (failed []error) {
	nics, err := n.kernel.LinkList()
	if err != nil {
		return []error{err}
	}
	for i := range n.links {
		l := &n.links[i]
		if l.Kind != "" {
			continue
		}
		if n.nics[i], err = l.find(nics); err != nil && len(l.Addresses) > 0 {
			failed = append(failed, l.failure(err))
		}
	}
	return failed
}

// find returns the interface. Interfaces that are stacked on another one share
// its MAC and come after it. Those in a bond share that of the bond, but not
// the permanent one.
func (l *link) find(nics []netlink.Link) (netlink.Link, error) {
	var known []string
	for _, permanent := range []bool{true, false} {
		for _, nic := range nics {
			attrs := nic.Attrs()
			mac := attrs.HardwareAddr
			if permanent {
				mac = attrs.PermHWAddr
			} else {
				known = append(known, attrs.Name+" "+mac.String())
			}
			ok := strings.EqualFold(mac.String(), l.MAC)
			if l.MAC == "" {
				var err error
				if ok, err = path.Match(first(l.Name, "*"), attrs.Name); err != nil {
					return nil, err
				}
			}
			if ok && l.driverMatches(attrs.Name) {
				return nic, nil
			}
		}
	}
	return nil, fmt.Errorf("no such interface (interfaces: %s)", strings.Join(known, ", "))
}

// driverMatches reports whether an interface has one of the drivers of the link.
func (l *link) driverMatches(name string) bool {
	if len(l.Drivers) == 0 {
		return true
	}
	driver, err := os.Readlink(path.Join("/sys/class/net", name, "device/driver"))
	return err == nil && slices.ContainsFunc(l.Drivers, func(pattern string) bool {
		ok, err := path.Match(pattern, path.Base(driver))
		return ok && err == nil
	})
}

// renameAll gives interfaces their new names. One that has a name which another
// gets is renamed first, because two interfaces may swap their names.
func (n *network) renameAll() (failed []error) {
	for i := range n.links {
		l, nic := &n.links[i], n.nics[i]
		if nic == nil || l.SetName == "" || nic.Attrs().Name == l.SetName {
			continue
		}
		if other, err := n.kernel.LinkByName(l.SetName); err == nil {
			if err := n.rename(other, fmt.Sprintf("nic%d", other.Attrs().Index)); err != nil {
				failed = append(failed, l.failure(err))
				continue
			}
		}
		if err := n.rename(nic, l.SetName); err != nil {
			failed = append(failed, l.failure(err))
		}
	}
	return failed
}

// rename renames an interface. Old kernels rename only those that are down.
func (n *network) rename(nic netlink.Link, name string) error {
	err := n.kernel.LinkSetName(nic, name)
	if errors.Is(err, unix.EBUSY) {
		if err = n.kernel.LinkSetDown(nic); err == nil {
			err = n.kernel.LinkSetName(nic, name)
		}
	}
	if err != nil {
		return fmt.Errorf("set the name %q: %w", name, err)
	}
	for i := range n.nics {
		if n.nics[i] != nil && n.nics[i].Attrs().Index == nic.Attrs().Index {
			n.nics[i].Attrs().Name = name
		}
	}
	return nil
}

// createAll creates bonds, bridges and VLANs, each after what is below it.
func (n *network) createAll() (failed []error) {
	waiting := map[int]bool{}
	for i := range n.links {
		if n.links[i].Kind != "" {
			waiting[i] = true
		}
	}
	for progress := true; progress; {
		progress = false
		for i := range n.links {
			if l := &n.links[i]; waiting[i] && !slices.ContainsFunc(l.Over, func(id string) bool { return n.waits(waiting, id) }) {
				delete(waiting, i)
				progress = true
				if err := n.create(i); err != nil {
					failed = append(failed, l.failure(err))
				}
			}
		}
	}
	for i := range n.links {
		if waiting[i] {
			failed = append(failed, n.links[i].failure(fmt.Errorf("is below itself: %s", strings.Join(n.links[i].Over, ", "))))
		}
	}
	return failed
}

func (n *network) waits(waiting map[int]bool, id string) bool {
	for i := range waiting {
		if n.links[i].ID == id {
			return true
		}
	}
	return false
}

// lower returns the interface that an ID or name means.
func (n *network) lower(id string) (netlink.Link, error) {
	for i := range n.links {
		if n.links[i].ID == id {
			if n.nics[i] == nil {
				return nil, fmt.Errorf("%s does not exist", id)
			}
			return n.nics[i], nil
		}
	}
	nic, err := n.kernel.LinkByName(id)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", id, err)
	}
	return nic, nil
}

// isMember reports whether a link belongs to a bond or bridge.
func (n *network) isMember(l *link) bool {
	return l.ID != "" && slices.ContainsFunc(n.links, func(other link) bool {
		return (other.Kind == kindBond || other.Kind == kindBridge) && slices.Contains(other.Over, l.ID)
	})
}

// create creates the interface of a link, unless it exists.
func (n *network) create(i int) error {
	l := &n.links[i]
	var lower []netlink.Link
	for _, id := range l.Over {
		nic, err := n.lower(id)
		if err != nil {
			return err
		}
		lower = append(lower, nic)
	}
	added, err := l.device(lower)
	if err != nil {
		return err
	}
	if err := n.kernel.LinkAdd(added); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%s: %w", l.Kind, err)
	}
	if n.nics[i], err = n.kernel.LinkByName(l.Name); err != nil {
		return err
	}
	if l.Kind == kindBridge {
		if err := setBridge(n.nics[i], l.Parameters); err != nil {
			return err
		}
	}
	for _, nic := range lower {
		if l.Kind != kindVLAN {
			if err := n.enslave(nic, n.nics[i], l.Kind); err != nil {
				return fmt.Errorf("%s: %w", nic.Attrs().Name, err)
			}
		}
		if err := n.kernel.LinkSetUp(nic); err != nil {
			return fmt.Errorf("%s: %w", nic.Attrs().Name, err)
		}
	}
	return nil
}

// enslave makes an interface a member of a bond or bridge. A bond takes only
// interfaces that are down.
func (n *network) enslave(nic, master netlink.Link, kind string) error {
	if nic.Attrs().MasterIndex == master.Attrs().Index {
		return nil
	}
	if kind == kindBond {
		if err := n.kernel.LinkSetDown(nic); err != nil {
			return err
		}
	}
	return n.kernel.LinkSetMaster(nic, master)
}

// device returns the interface to create.
func (l *link) device(lower []netlink.Link) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = l.Name
	switch l.Kind {
	case kindVLAN:
		if l.VLAN < 1 || l.VLAN > 4094 || len(lower) != 1 {
			return nil, fmt.Errorf("VLAN %d: must be 1 to 4094, on one interface", l.VLAN)
		}
		attrs.ParentIndex = lower[0].Attrs().Index
		return &netlink.Vlan{LinkAttrs: attrs, VlanId: l.VLAN, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}, nil
	case kindBridge:
		return &netlink.Bridge{LinkAttrs: attrs}, nil
	}
	bond := netlink.NewLinkBond(attrs)
	if l.Parameters["arp-interval"] == "" {
		bond.Miimon = 100 // without it, a bond does not see that a link goes down
	}
	for _, key := range sortedKeys(l.Parameters) {
		value := l.Parameters[key]
		if key == "primary" {
			i := slices.Index(l.Over, value)
			if i < 0 {
				return nil, fmt.Errorf("primary %q is not one of its interfaces", value)
			}
			bond.Primary = lower[i].Attrs().Index
			continue
		}
		if err := bondParameters[key](bond, value); err != nil {
			return nil, fmt.Errorf("%s %q: %w", key, value, err)
		}
	}
	return bond, nil
}

// hasParameter reports whether a bond or bridge has a parameter.
func hasParameter(kind, name string) bool {
	if kind == kindBridge {
		return bridgeParameters[name] != nil
	}
	return bondParameters[name] != nil || name == "primary"
}

type bondParameter func(b *netlink.Bond, value string) error

// bondParameters are the parameters of bonds, see
// https://docs.kernel.org/networking/bonding.html.
var bondParameters = map[string]bondParameter{
	"mode":                    named(netlink.StringToBondModeMap, func(b *netlink.Bond) *netlink.BondMode { return &b.Mode }),
	"lacp-rate":               named(netlink.StringToBondLacpRateMap, func(b *netlink.Bond) *netlink.BondLacpRate { return &b.LacpRate }),
	"transmit-hash-policy":    named(netlink.StringToBondXmitHashPolicyMap, func(b *netlink.Bond) *netlink.BondXmitHashPolicy { return &b.XmitHashPolicy }),
	"ad-select":               named(netlink.StringToBondAdSelectMap, func(b *netlink.Bond) *netlink.BondAdSelect { return &b.AdSelect }),
	"arp-validate":            named(netlink.StringToBondArpValidateMap, func(b *netlink.Bond) *netlink.BondArpValidate { return &b.ArpValidate }),
	"arp-all-targets":         named(netlink.StringToBondArpAllTargetsMap, func(b *netlink.Bond) *netlink.BondArpAllTargets { return &b.ArpAllTargets }),
	"fail-over-mac-policy":    named(netlink.StringToBondFailOverMacMap, func(b *netlink.Bond) *netlink.BondFailOverMac { return &b.FailOverMac }),
	"primary-reselect-policy": named(netlink.StringToBondPrimaryReselectMap, func(b *netlink.Bond) *netlink.BondPrimaryReselect { return &b.PrimaryReselect }),
	"mii-monitor-interval":    number(func(b *netlink.Bond) *int { return &b.Miimon }),
	"min-links":               number(func(b *netlink.Bond) *int { return &b.MinLinks }),
	"up-delay":                number(func(b *netlink.Bond) *int { return &b.UpDelay }),
	"down-delay":              number(func(b *netlink.Bond) *int { return &b.DownDelay }),
	"arp-interval":            number(func(b *netlink.Bond) *int { return &b.ArpInterval }),
	"gratuitous-arp":          number(func(b *netlink.Bond) *int { return &b.NumPeerNotif }),
	"packets-per-slave":       number(func(b *netlink.Bond) *int { return &b.PacketsPerSlave }),
	"learn-packet-interval":   number(func(b *netlink.Bond) *int { return &b.LpInterval }),
	"all-slaves-active":       truth(func(b *netlink.Bond) *int { return &b.AllSlavesActive }),
	"arp-ip-targets": func(b *netlink.Bond, value string) error {
		for text := range strings.SplitSeq(value, ",") {
			ip := net.ParseIP(strings.TrimSpace(text))
			if ip == nil {
				return fmt.Errorf("%q is not an IP address", text)
			}
			b.ArpIpTargets = append(b.ArpIpTargets, ip)
		}
		return nil
	},
}

// named returns a parameter with named values, which may be numbers, too.
func named[T ~int](values map[string]T, field func(*netlink.Bond) *T) bondParameter {
	return func(b *netlink.Bond, value string) error {
		if found, ok := values[value]; ok {
			*field(b) = found
			return nil
		}
		n, err := strconv.Atoi(value)
		for _, known := range values {
			if err == nil && int(known) == n {
				*field(b) = known
				return nil
			}
		}
		return fmt.Errorf("must be one of %s", strings.Join(sortedKeys(values), ", "))
	}
}

func number(field func(*netlink.Bond) *int) bondParameter {
	return func(b *netlink.Bond, value string) error {
		n, err := strconv.ParseUint(value, 10, 31)
		*field(b) = int(n)
		return err
	}
}

func truth(field func(*netlink.Bond) *int) bondParameter {
	return func(b *netlink.Bond, value string) (err error) {
		*field(b), err = parseTruth(value)
		return err
	}
}

func parseTruth(value string) (int, error) {
	switch strings.ToLower(value) {
	case "true", "yes", "on", "1":
		return 1, nil
	case "false", "no", "off", "0":
		return 0, nil
	}
	return 0, errors.New("must be true or false")
}

// bridgeParameters return the attribute of the kernel for a parameter of a
// bridge (rtnetlink, IFLA_BR_…). Its times are in hundredths of a second.
var bridgeParameters = map[string]func(value string) (*nl.RtAttr, error){
	"stp": func(value string) (*nl.RtAttr, error) {
		n, err := parseTruth(value)
		return nl.NewRtAttr(nl.IFLA_BR_STP_STATE, nl.Uint32Attr(uint32(n))), err
	},
	"priority": func(value string) (*nl.RtAttr, error) {
		n, err := strconv.ParseUint(value, 10, 16)
		return nl.NewRtAttr(nl.IFLA_BR_PRIORITY, nl.Uint16Attr(uint16(n))), err
	},
	"forward-delay": seconds(nl.IFLA_BR_FORWARD_DELAY),
	"hello-time":    seconds(nl.IFLA_BR_HELLO_TIME),
	"max-age":       seconds(nl.IFLA_BR_MAX_AGE),
	"ageing-time":   seconds(nl.IFLA_BR_AGEING_TIME),
}

func seconds(attribute int) func(string) (*nl.RtAttr, error) {
	return func(value string) (*nl.RtAttr, error) {
		n, err := strconv.ParseUint(value, 10, 24)
		return nl.NewRtAttr(attribute, nl.Uint32Attr(uint32(n)*100)), err
	}
}

// setBridge sets the parameters of a bridge. The library has only two of them.
func setBridge(bridge netlink.Link, parameters map[string]string) error {
	message := nl.NewIfInfomsg(unix.AF_UNSPEC)
	message.Index = int32(bridge.Attrs().Index)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kindBridge))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	for _, key := range sortedKeys(parameters) {
		attribute, err := bridgeParameters[key](parameters[key])
		if err != nil {
			return fmt.Errorf("%s %q: %w", key, parameters[key], err)
		}
		data.AddChild(attribute)
	}
	if len(parameters) == 0 {
		return nil
	}
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	request.AddData(message)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return fmt.Errorf("parameters of the bridge: %w", err)
	}
	return nil
}
