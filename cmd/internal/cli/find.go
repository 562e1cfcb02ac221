package cli

import (
	"os"
	"os/exec"
	"path/filepath"
)

// FindProgram returns the path of another program of Slipway: the one beside this
// program, or else the one in PATH.
func FindProgram(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		if beside, err := exec.LookPath(filepath.Join(filepath.Dir(self), name)); err == nil {
			return beside, nil
		}
	}
	return exec.LookPath(name)
}
