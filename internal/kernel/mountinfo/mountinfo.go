// Package mountinfo lists the mounts of a mount namespace.
package mountinfo

import (
	"os"
	"slices"
	"strconv"
	"strings"
)

// Mount is a line of /proc/PID/mountinfo, proc_pid_mountinfo(5).
type Mount struct {
	Path, Type, Source string
}

// Read returns the mounts that the calling thread sees, in the order in which
// they were made.
func Read() ([]Mount, error) {
	text, err := os.ReadFile("/proc/thread-self/mountinfo")
	return parse(string(text)), err
}

func parse(text string) []Mount {
	var mounts []Mount
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		end := slices.Index(fields, "-") // of the optional fields
		if end < 5 || len(fields) < end+3 {
			continue
		}
		mounts = append(mounts, Mount{unescape(fields[4]), fields[end+1], unescape(fields[end+2])})
	}
	return mounts
}

// unescape decodes the octal escapes of white space and backslashes.
func unescape(s string) string {
	for i := 0; i+3 < len(s); i++ {
		if s[i] == '\\' {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				s = s[:i] + string([]byte{byte(c)}) + s[i+4:]
			}
		}
	}
	return s
}
