package contract

// ExitStatus starts the line on the console with which the init announces the
// exit status of a batch machine, before it powers the machine off. The status
// follows in decimal.
const ExitStatus = "exit status of the machine: "

// PowerOffArg is the kernel argument for machines that only a reset ends, such as
// those of Firecracker: with the value [PowerOffReboot], the init resets a machine
// that it would power off.
const (
	PowerOffArg    = "slipway.poweroff"
	PowerOffReboot = "reboot"
)
