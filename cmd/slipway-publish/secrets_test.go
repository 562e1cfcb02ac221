package main

import (
	"strings"
	"testing"

	"github.com/slipway-build/slipway/publisher/awstest"
)

// A partition that cannot be searched causes a warning, and the publish
// continues.
func TestSecretWarning(t *testing.T) {
	fake := awstest.StartTLS(t, awstest.Knobs{})
	h := newHost(t, fake, content(1, 2))
	out, code, message := h.run(nil, "aws", "--name", "machine-1", "--share", "all", "--allow-secret", "etc/key", "machine.raw")
	if code != 0 || !strings.Contains(message, "slipway-publish: warning: machine.raw: partition 1 is not searched for secrets: ") {
		t.Errorf("exit %d: %s%s", code, out, message)
	}
}
