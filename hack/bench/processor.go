package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of times in /proc, on all architectures of Linux.
const clockTick = 10 * time.Millisecond

// processorTime returns the processor time of this process, of the programs that
// it has run, and of the current buildkitd with its containers.
func (b *setup) processorTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var usage syscall.Rusage
		if syscall.Getrusage(who, &usage) == nil {
			sum += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
	if b.daemon == nil {
		return sum
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.daemon.Process.Pid))
	if err != nil {
		return sum
	}
	// The fields after the name, which ends with a parenthesis, start with the
	// third. See proc_pid_stat(5).
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	for i := 14; i <= 17 && i-3 < len(fields); i++ { // utime, stime, cutime, cstime
		var ticks int64
		if _, err := fmt.Sscan(fields[i-3], &ticks); err == nil {
			sum += time.Duration(ticks) * clockTick
		}
	}
	return sum
}
