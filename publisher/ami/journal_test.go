package ami

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ebs"
)

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	never := func() { t.Error("the journal is locked") }
	j, err := openJournal(t.Context(), dir, "x", never)
	if err != nil {
		t.Fatal(err)
	}
	run := j.Run
	seven := int32(7)
	for _, change := range []record{{Snapshot: "snap-1", Partial: true}, {Block: &seven}, {Image: "ami-1"}} {
		if err := j.note(change); err != nil {
			t.Fatal(err)
		}
	}
	waiting := make(chan struct{})
	go func(first *journal) {
		<-waiting
		first.close(false)
	}(j)
	// The second one waits for the first.
	j, err = openJournal(t.Context(), dir, "x", func() { close(waiting) })
	if err != nil {
		t.Fatal(err)
	}
	j.close(false)
	// A kill may cut off the last line.
	path := filepath.Join(dir, "x.jsonl")
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(`{"Block":`); err != nil {
		t.Fatal(err)
	}
	file.Close()
	j, err = openJournal(t.Context(), dir, "x", never)
	if err != nil {
		t.Fatal(err)
	}
	if j.Run != run || j.Snapshot != "snap-1" || !j.Partial || j.Image != "ami-1" || !j.isWritten(7) || j.isWritten(8) {
		t.Errorf("got %+v %v", j.record, j.written)
	}
	if err := j.restart(); err != nil || j.Run == run || j.Snapshot != "" || j.isWritten(7) {
		t.Errorf("after a restart: %+v, %v", j.record, err)
	}
	if err := j.close(true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the journal was not removed: %v", err)
	}
}

// TestPendingIsKept ends a wait. Cleaning up must keep what AWS is still making,
// and the error must say how to go on.
func TestPendingIsKept(t *testing.T) {
	cause := poll(t.Context(), "snap-1", -1, func(context.Context) (bool, error) { return false, nil })
	p := &Publisher{options: Options{Monitor: new(Monitor)}}
	for what, test := range map[string]struct {
		change record
		cause  error
	}{
		"snapshot": {record{Start: new(ebs.StartSnapshotInput), Snapshot: "snap-1"}, cause},
		"image":    {record{Register: true, Image: "ami-1"}, cause},
	} {
		j, err := openJournal(t.Context(), t.TempDir(), "x", func() {})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.note(test.change); err != nil {
			t.Fatal(err)
		}
		// Services without clients: an undo would panic.
		one := &target{publisher: p, region: "us-east-1", journal: j, image: new(Image)}
		err = p.cleanUp(t.Context(), []*target{one}, nil, test.cause)
		if err == nil || err.Error() != "snap-1: not finished after -1ns; run the same command again to continue" {
			t.Errorf("%s: got %v", what, err)
		}
		if _, err := os.Stat(j.lock.Path()); err != nil {
			t.Errorf("%s: the journal is gone: %v", what, err)
		}
		if err := j.close(true); err != nil {
			t.Error(err)
		}
	}
}
