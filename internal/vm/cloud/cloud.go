// Package cloud imitates how clouds describe a machine to itself: with EC2's
// instance metadata service and with a volume for the NoCloud data source of
// cloud-init.
package cloud

// An Instance is what the cloud says about a machine.
type Instance struct {
	ID         string
	Hostname   string
	PublicKeys []string // lines of an authorized_keys file
	UserData   string   // "" for none
}

// Address is the IPv4 address of the metadata service.
const Address = "169.254.169.254"

// What the service says about every instance.
const (
	instanceType = "t3.micro"
	region       = "us-east-1"
	zone         = region + "a"
	account      = "000000000000"
)

// GuestIPv4 and GuestMAC are the addresses of the machine's network interface.
const (
	GuestIPv4 = "169.254.0.15"
	GuestMAC  = "52:54:00:12:34:56"
)
