package ami

import (
	"os"
	"path/filepath"
	"testing"
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
