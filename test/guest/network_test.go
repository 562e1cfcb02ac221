package guest

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// EC2's addresses of the metadata service.
const imds4, imds6 = "169.254.169.254", "fd00:ec2::254"

// example builds the machine of examples/aws.yml.
func example(t *testing.T) (dir string) {
	t.Helper()
	file, err := filepath.Abs("../../examples/aws.yml")
	if err != nil {
		t.Fatal(err)
	}
	return build(t, file)
}

// TestIPv6 boots the machine of examples/aws.yml in a subnet of EC2 without
// IPv4: a router announces DHCPv6 and no prefix for SLAAC.
func TestIPv6(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t), example(t)
	l := newLAN(t, []string{"fd00:ec2:1::1/64"})
	l.imds(t, key, new(atomic.Bool), imds6)
	l.dnsmasq(t, "tap0", "--enable-ra", "--dhcp-range=fd00:ec2:1::50,fd00:ec2:1::50,64,1h", "--dhcp-option=option6:dns-server,[fd00:ec2::253]")
	m := l.boot(t, dir, 1)
	l.await(t, m, key, "fd00:ec2:1::50", "cat /etc/resolv.conf; ip -6 route; nsenter --target 1 --mount cat /run/config/instance_id",
		[]string{"nameserver fd00:ec2::253\n", "default via fe80::", "i-1"}, nil)
	m.says(t, `onboot 001-dhcpcd: done in [\d.]+ s, exit 0`, `onboot 002-metadata: done in [\d.]+ s, exit 0`)
}

// TestNetworkRecovers boots the machine of examples/aws.yml in a network that
// does not work yet, and that changes.
func TestNetworkRecovers(t *testing.T) {
	if !*bootAll {
		t.Skip("takes minutes: runs with -boot")
	}
	t.Parallel()
	key, dir := newKey(t), example(t)
	l := newLAN(t, []string{"10.0.0.1/24", "fd00:ec2:1::1/64"}, []string{"10.0.1.1/24", "fd00:ec2:2::1/64"})
	var down atomic.Bool
	down.Store(true)
	l.imds(t, key, &down, imds4)
	m := l.boot(t, dir, 1)

	// DHCP and metadata are late.
	m.await(t, `machine is up`)
	lease := func(link, last string, more ...string) func() {
		subnet := "10.0." + strings.TrimPrefix(link, "tap")
		return l.dnsmasq(t, link, append([]string{
			"--dhcp-range=" + subnet + "." + last + "," + subnet + "." + last + ",2m", "--dhcp-option=option:T1,20",
			"--dhcp-option=option:dns-server," + subnet + ".2" + last,
		}, more...)...)
	}
	stop := lease("tap0", "50")
	down.Store(false)
	const show = "cat /etc/resolv.conf; ip address"
	l.await(t, m, key, "10.0.0.50", show, []string{"nameserver 10.0.0.250\n", "10.0.0.50/24"}, nil)

	// The server has other leases now.
	stop()
	stop = lease("tap0", "51", "--enable-ra", "--dhcp-range=fd00:ec2:1::50,fd00:ec2:1::50,64,2m", "--dhcp-option=option6:dns-server,[fd00:ec2::253]")
	l.await(t, m, key, "10.0.0.51", show, []string{"nameserver 10.0.0.251\n", "10.0.0.51/24"}, []string{"10.0.0.250", "10.0.0.50/24"})

	// The link goes and comes. Then DHCPv6 answers, too.
	m.press(t, "set_link net0 off")
	stop()
	lease("tap0", "52", "--enable-ra", "--dhcp-range=fd00:ec2:1::50,fd00:ec2:1::50,64,2m", "--dhcp-option=option6:dns-server,[fd00:ec2::253]")
	m.press(t, "set_link net0 on")
	l.await(t, m, key, "10.0.0.52", show, []string{"nameserver 10.0.0.252\n", "nameserver fd00:ec2::253\n", "fd00:ec2:1::50"}, []string{"10.0.0.251"})

	// A second card is plugged in. Answers to a host elsewhere leave through the
	// card that was asked.
	lease("tap1", "50", "--enable-ra", "--dhcp-range=fd00:ec2:2::50,fd00:ec2:2::50,64,2m")
	m.press(t, "netdev_add "+netdev(1))
	m.press(t, "device_add "+card(1))
	l.await(t, m, key, "10.0.0.52", show, []string{"nameserver 10.0.0.252\n", "nameserver 10.0.1.250\n", "10.0.1.50/24", "fd00:ec2:2::50"}, nil)
	l.run(t, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
	l.run(t, "ip", "address", "add", "2001:db8::1/128", "dev", "lo", "nodad")
	for _, address := range []string{"10.0.0.52", "10.0.1.50", "fd00:ec2:1::50", "fd00:ec2:2::50"} {
		source := "192.0.2.1"
		if strings.Contains(address, ":") {
			source = "2001:db8::1"
		}
		l.run(t, append(sshCommand(key), "-b", source, "root@"+address, "true")...)
	}
	// It is unplugged again, and what it brought ends.
	m.press(t, "device_del card1")
	l.await(t, m, key, "10.0.0.52", show+"; ip rule", []string{"nameserver 10.0.0.252\n"}, []string{"10.0.1.", "1000:"})
}
