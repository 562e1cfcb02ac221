package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
)

// A cast is a recording of a terminal.
type cast struct {
	Version int `json:"version"`
	Width   int `json:"width"`
	Height  int `json:"height"`
	events  []event
}

// An event is output of the terminal.
type event struct {
	at   float64 // seconds since the start
	text string
}

// encode writes the recording as an asciicast, version 2.
func (c *cast) encode(out *bytes.Buffer) error {
	header, err := json.Marshal(c)
	if err != nil {
		return err
	}
	out.Write(append(header, '\n'))
	for _, e := range c.events {
		line, err := json.Marshal([]any{math.Round(e.at*1000) / 1000, "o", e.text})
		if err != nil {
			return err
		}
		out.Write(append(line, '\n'))
	}
	return nil
}

func decode(in io.Reader) (*cast, error) {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	c := &cast{}
	if !lines.Scan() {
		return nil, errors.Join(errors.New("empty recording"), lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), c); err != nil {
		return nil, err
	}
	if c.Version != 2 || c.Width < 1 || c.Width > 500 || c.Height < 1 || c.Height > 200 {
		return nil, fmt.Errorf("version %d, %d×%d: not supported", c.Version, c.Width, c.Height)
	}
	for lines.Scan() {
		var e event
		var kind string
		if err := json.Unmarshal(lines.Bytes(), &[]any{&e.at, &kind, &e.text}); err != nil {
			return nil, err
		}
		if kind == "o" {
			c.events = append(c.events, e)
		}
	}
	return c, lines.Err()
}

// quicken shortens pauses to a limit, in seconds.
func (c *cast) quicken(limit float64) {
	cut, before := 0.0, 0.0
	for i := range c.events {
		e := &c.events[i]
		pause := e.at - before
		before = e.at
		cut += max(0, pause-limit)
		e.at -= cut
	}
}
