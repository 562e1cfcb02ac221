package disklink

import (
	"encoding/binary"
	"os"
	"regexp"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Models of the disks of EC2 (NVM Express Base Specification, figure "Identify
// Controller Data Structure", MN).
const (
	modelEBS   = "Amazon Elastic Block Store"
	modelStore = "Amazon EC2 NVMe Instance Storage"
)

// ec2Name returns the name under which an EBS volume was attached to the
// instance, without /dev/: sdf, xvdba. It is "" for other disks.
// https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
func (d *device) ec2Name() string {
	if model := d.diskAttribute("device/model"); model != modelEBS && model != modelStore {
		return ""
	}
	data, err := identify(d.node())
	if err != nil {
		return ""
	}
	return parseIdentify(data)
}

const identifySize = 4096

// identify sends the command Identify (opcode 0x06) for the controller (CNS 1).
func identify(node string) ([]byte, error) {
	f, err := os.Open(node)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, identifySize)
	// struct nvme_passthru_cmd of include/uapi/linux/nvme_ioctl.h
	command := struct {
		opcode, flags        uint8
		_                    uint16
		nsid, cdw2, cdw3     uint32
		metadata, addr       uint64
		metadataLen, dataLen uint32
		cdw10, cdw11, cdw12  uint32
		cdw13, cdw14, cdw15  uint32
		timeout, result      uint32 // the timeout is in ms
	}{opcode: 0x06, addr: uint64(uintptr(unsafe.Pointer(&data[0]))), dataLen: identifySize, cdw10: 1, timeout: 5000}
	const adminCommand = 0xc0484e41 // NVME_IOCTL_ADMIN_CMD: _IOWR('N', 0x41, 72 bytes)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), adminCommand, uintptr(unsafe.Pointer(&command)))
	runtime.KeepAlive(data)
	if errno != 0 {
		return nil, errno
	}
	return data, nil
}

// ec2Device is what EC2 accepts as the name of a device. The data comes from the
// hypervisor, but a link must not replace anything else in /dev.
var ec2Device = regexp.MustCompile(`^(sd|xvd|hd)[a-z]{1,3}[0-9]{0,2}$`)

// parseIdentify returns the name of the device in the vendor-specific part of the
// data of Identify. For EBS that is the name; for an instance store it is the
// name of the virtual device, a colon and the name, or none.
func parseIdentify(data []byte) string {
	const vendor, amazon, model, vendorSpecific = 0, 0x1d0f, 24, 3072
	if len(data) != identifySize || binary.LittleEndian.Uint16(data[vendor:]) != amazon {
		return ""
	}
	name := strings.Trim(string(data[vendorSpecific:][:32]), " \x00")
	if strings.TrimRight(string(data[model:][:40]), " ") == modelStore {
		_, name, _ = strings.Cut(name, ":")
	}
	name = strings.TrimPrefix(name, "/dev/")
	if !ec2Device.MatchString(name) {
		return ""
	}
	return name
}
