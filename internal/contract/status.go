package contract

// ExitStatus starts the line on the console with which the init announces the
// exit status of a batch machine, before it powers the machine off. The status
// follows in decimal.
const ExitStatus = "exit status of the machine: "
