package main

import (
	"errors"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// errNoAnswer is the error of run if no provider answers.
var errNoAnswer = errors.New("no provider has an answer")

// How long untilAnswered waits between two runs. The delay doubles.
const (
	firstDelay = time.Second
	lastDelay  = 30 * time.Second
)

// untilAnswered calls run until a provider answers. It does nothing if an
// earlier run has written the answer of one to dir.
func untilAnswered(dir string, run func() error, sleep func(time.Duration)) error {
	if _, err := os.Lstat(filepath.Join(dir, providerFile)); err == nil {
		return nil
	}
	for delay, last := firstDelay, ""; ; delay = min(2*delay, lastDelay) {
		err := run()
		if !errors.Is(err, errNoAnswer) {
			return err
		}
		if text := err.Error(); text != last {
			logLines(err)
			log.Print("asking again until there is an answer")
			last = text
		}
		sleep(delay)
	}
}

// logLines logs the lines of an error.
func logLines(err error) {
	for line := range strings.Lines(err.Error()) {
		log.Print(strings.TrimSpace(line))
	}
}
