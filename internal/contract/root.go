package contract

// The rules for the files of an image, by its place in the machine.
const (
	RulesNone      = "none"      // unchanged
	RulesInit      = "init"      // at the root, with other images below and above it
	RulesContainer = "container" // root filesystem of an onboot, onshutdown or service container
	RulesVolume    = "volume"    // content of a volume
)

// SystemDirectories returns the directories that every root filesystem needs,
// parents first.
func SystemDirectories() []string {
	return []string{"dev", "dev/pts", "dev/shm", "etc", "proc", "sys"}
}

// TemporaryDirectories returns the directories on which the init mounts
// temporary filesystems. They hide what the images have there.
func TemporaryDirectories() []string { return []string{"run", "tmp", "var"} }

// MountPoints returns the directories of the root filesystem on which the
// machine mounts other filesystems. A read-only root filesystem must contain
// them.
func MountPoints() []string {
	return append([]string{"dev", "mnt", "proc", "sys"}, TemporaryDirectories()...)
}
