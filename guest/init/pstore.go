package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/slipway-build/slipway/guest/modprobe"
	"github.com/slipway-build/slipway/internal/kernel/cmdline"
)

const (
	pstoreDir   = "/sys/fs/pstore"
	pstoreLimit = 64 << 10 // bytes of a record
	pstoreMost  = 1000     // records
	pstoreLog   = "pstore" // name of the log
	pstoreShown = 40       // lines of a dump
)

// loadPstore loads the drivers that keep what the kernel said before a crash:
// in EFI variables, and in memory that the kernel command line reserves. Nothing
// else loads them.
func loadPstore(loader *modprobe.Loader, args []cmdline.Arg) error {
	var names []string
	if _, err := os.Stat("/sys/firmware/efi"); err == nil {
		names = append(names, "efivarfs", "efi_pstore")
	}
	if slices.ContainsFunc(args, func(a cmdline.Arg) bool { return strings.HasPrefix(a.Key, "ramoops.") }) {
		names = append(names, "ramoops")
	}
	var errs []error
	for _, name := range names {
		if err := loader.Load(name); !errors.Is(err, modprobe.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// A dump is what the kernel said before it crashed or the machine stopped.
type dump struct {
	reason string // for example "Panic#1"
	at     time.Time
	text   []byte
	files  []string
}

// A record is a part of a dump.
type record struct {
	dump

	part int // counted from the end of the dump
}

var recordHeader = regexp.MustCompile(`^([A-Za-z]{1,20}#\d{1,9}) Part(\d{1,9})\n`)

// readPstore returns the dumps in a directory, oldest first.
func readPstore(dir string) ([]dump, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	errs := []error{err}
	var records []record
	for _, entry := range entries[:min(len(entries), pstoreMost)] {
		if !strings.HasPrefix(entry.Name(), "dmesg-") { // not what the kernel said
			continue
		}
		r, err := readRecord(filepath.Join(dir, entry.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		records = append(records, r)
	}
	slices.SortStableFunc(records, func(a, b record) int { return a.at.Compare(b.at) })
	return joinRecords(records), errors.Join(errs...)
}

func readRecord(path string) (record, error) {
	f, err := os.Open(path)
	if err != nil {
		return record{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return record{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, pstoreLimit))
	if err != nil {
		return record{}, err
	}
	r := record{dump: dump{reason: filepath.Base(path), at: info.ModTime(), text: text, files: []string{path}}}
	if header := recordHeader.FindSubmatch(text); header != nil {
		r.reason, r.text = string(header[1]), text[len(header[0]):]
		r.part, _ = strconv.Atoi(string(header[2])) // at most nine digits
	}
	return r, nil
}

// joinRecords joins the parts of each dump. The last part is recorded first, and
// all of them within a minute.
func joinRecords(records []record) []dump {
	var dumps []dump
	for len(records) > 0 {
		first := records[0]
		var parts, rest []record
		for _, r := range records {
			if r.reason == first.reason && r.at.Sub(first.at) < time.Minute {
				parts = append(parts, r)
			} else {
				rest = append(rest, r)
			}
		}
		slices.SortStableFunc(parts, func(a, b record) int { return b.part - a.part })
		d := dump{reason: first.reason, at: first.at}
		for _, r := range parts {
			d.text = append(d.text, r.text...)
			d.files = append(d.files, r.files...)
		}
		dumps, records = append(dumps, d), rest
	}
	return dumps
}

// showDumps prints the ends of dumps on the console.
func (m *machine) showDumps(dumps []dump) {
	for _, d := range dumps {
		m.out.say("pstore: the kernel recorded %q at %s, see %s", d.reason, d.at.UTC().Format(time.RFC3339), filepath.Join(logDir, pstoreLog+".log"))
		m.out.quote(lastLines(printableText(d.text), pstoreShown))
	}
}

// saveDumps appends dumps to a log, then removes them from the pstore, whose
// space is small.
func saveDumps(dumps []dump, dir string) error {
	if len(dumps) == 0 {
		return nil
	}
	log, err := openLogFile(filepath.Join(dir, pstoreLog+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	var errs []error
	for _, d := range dumps {
		_, err := fmt.Fprintf(log, "%s at %s\n%s\n", d.reason, d.at.UTC().Format(time.RFC3339), bytes.TrimRight(printableText(d.text), "\n"))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for _, file := range d.files {
			errs = append(errs, os.Remove(file))
		}
	}
	return errors.Join(errs...)
}

// noteFailure keeps the end of a failed job for the next boot.
func (m *machine) noteFailure(what string, logs ...[]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.failures) > maxFailures {
		return
	}
	m.failures = append(m.failures, what)
	for _, log := range logs {
		for line := range bytes.Lines(log) {
			m.failures = append(m.failures, "| "+string(bytes.TrimRight(line, "\r\n")))
		}
	}
}

// maxFailures bounds what noteFailure keeps: the pstore has 10 KiB.
const maxFailures = 60 // lines

// recordFailures makes the kernel record what has failed, if it has a pstore,
// when the machine stops. The kernel does not print the lines: the init has done
// so.
func (m *machine) recordFailures() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if entries, err := os.ReadFile("/sys/module/pstore/parameters/backend"); len(m.failures) == 0 || err != nil || strings.HasPrefix(string(entries), "(null)") {
		return nil
	}
	err := errors.Join(
		os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0), // without a limit
		os.WriteFile("/sys/module/printk/parameters/always_kmsg_dump", []byte("Y"), 0),
	)
	if err != nil {
		return err
	}
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer kmsg.Close()
	var errs []error
	for _, line := range m.failures {
		_, err := fmt.Fprintf(kmsg, "<7>slipway: %.200s\n", line) // 7: not on the console
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// printableText replaces the characters that could change a terminal.
func printableText(text []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}
