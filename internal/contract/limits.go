package contract

// Limits of Linux in bytes (include/uapi/linux/limits.h). PATH_MAX counts the
// final NUL too.
const (
	MaxPath = 4095 // of a path or the target of a symbolic link
	MaxName = 255  // of one name of a path
)
