package awstest_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/slipway-build/slipway/internal/testutil/stack"
	"github.com/slipway-build/slipway/publisher/awstest"
)

// boto3, with its own models and transfer manager, publishes to the fake with
// both methods.
func TestBoto3(t *testing.T) {
	python := stack.File(t, "moto", "bin", "python") // boto3 comes with moto
	fake := awstest.Start(t, awstest.Knobs{})
	cmd := exec.CommandContext(t.Context(), python, "testdata/publish.py")
	cmd.Env = append(append(os.Environ(), fake.Env()...), "AWS_DEFAULT_REGION="+awstest.Region)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	snapshots := fake.Snapshots()
	if len(snapshots) != 2 {
		t.Fatalf("snapshots are %+v", snapshots)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	for i, want := range []string{"account " + awstest.Account, "role vmimport", "ebs arm64 available snap-", "import arm64 available snap-", "InvalidAMIName.Duplicate"} {
		if !strings.HasPrefix(at(lines, i), want) {
			t.Errorf("line %d is %q, not %q", i+1, at(lines, i), want)
		}
	}
	want := make([]byte, 8*awstest.BlockSize)
	copy(want, bytes.Repeat([]byte{1}, awstest.BlockSize))
	copy(want[7*awstest.BlockSize:], bytes.Repeat([]byte{2}, awstest.BlockSize))
	for _, p := range snapshots {
		got := make([]byte, len(want))
		disk := must(fake.Disk(p.Region, p.ID))
		if _, err := disk.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("snapshot %s is a different disk: %v", p.ID, err)
		}
	}
	if orphans := fake.Orphans(); len(orphans) != 0 {
		t.Errorf("orphans: %v", orphans)
	}
	for _, v := range fake.Violations() {
		t.Error("violation:", v)
	}
}
