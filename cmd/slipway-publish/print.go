package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/slipway-build/slipway/publisher/ami"
	"github.com/slipway-build/slipway/publisher/disk"
)

// follow shows progress until it is stopped: a bar on a terminal, otherwise a
// line for each step and, in between, one every 10 seconds.
func follow(out *os.File, monitor *ami.Monitor) (stop func()) {
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&os.ModeCharDevice != 0
	interval := 10 * time.Second
	if terminal {
		interval = 200 * time.Millisecond
	}
	var mu sync.Mutex
	monitor.Step = func(region, step string) {
		mu.Lock()
		defer mu.Unlock()
		if terminal {
			fmt.Fprint(out, "\r\x1b[K")
		}
		fmt.Fprintf(out, "%s: %s\n", region, step)
	}
	var meter meter
	draw := func() {
		mu.Lock()
		defer mu.Unlock()
		line := meter.line(time.Now(), monitor)
		switch {
		case line == "":
		case terminal:
			fmt.Fprint(out, "\r\x1b[K", line)
		default:
			fmt.Fprintln(out, line)
		}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				draw()
			case <-done:
				if terminal {
					fmt.Fprint(out, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(done); <-ended })
}

// meter makes lines of progress.
type meter struct {
	start       time.Time
	first, last int64 // blocks written at start, and when the last line was made
}

func (m *meter) line(now time.Time, monitor *ami.Monitor) string {
	total, written := monitor.Blocks.Load(), monitor.Written.Load()
	if total == 0 {
		return ""
	}
	if m.start.IsZero() {
		m.start, m.first, m.last = now, written, -1
	}
	if written == total && m.last == written {
		return "" // what comes now are steps
	}
	m.last = written
	const width = 30
	filled := int(written * width / total)
	line := fmt.Sprintf("[%s%s] %d/%d blocks", strings.Repeat("=", filled), strings.Repeat(" ", width-filled), written, total)
	if past := now.Sub(m.start).Seconds(); past > 0 && written > m.first {
		speed := float64(written-m.first) / past
		line += fmt.Sprintf(", %.1f MB/s, %v left", speed*disk.BlockSize/1e6, time.Duration(float64(total-written)/speed*float64(time.Second)).Round(time.Second))
	}
	if skipped := monitor.Skipped.Load(); skipped > 0 {
		line += fmt.Sprintf(", %d skipped", skipped)
	}
	if retries := monitor.Retries.Load(); retries > 0 {
		line += fmt.Sprintf(", %d retries", retries)
	}
	return line
}

func printJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

func printResult(w io.Writer, result *ami.Result, took time.Duration, asJSON bool) error {
	if asJSON {
		return printJSON(w, result)
	}
	for _, image := range result.Images {
		how := ""
		switch b := image.Blocks; {
		case image.Existing:
			how = ", was there already"
		case b != nil:
			how = fmt.Sprintf(", %d of %d blocks written", b.Written, b.Total)
			if b.Resumed > 0 {
				how += fmt.Sprintf(", %d before", b.Resumed)
			}
		}
		fmt.Fprintf(w, "%s  %s (%s, %s, %s%s)\n", image.Image, image.Region, image.Snapshot, image.Architecture, image.BootMode, how)
	}
	image := result.Images[0]
	_, err := fmt.Fprintf(w, "Published in %v. Start it with:\n  aws ec2 run-instances --region %s --image-id %s --instance-type %s --key-name KEY\n",
		took.Round(100*time.Millisecond), image.Region, image.Image, instanceType(image.Architecture))
	return err
}

func instanceType(machine string) string {
	if machine == string(disk.ARM64) {
		return "t4g.micro"
	}
	return "t3.micro"
}

func printPlan(w io.Writer, d *disk.Disk, o ami.Options, result *ami.Result, asJSON bool) error {
	if asJSON {
		return printJSON(w, result)
	}
	for _, image := range result.Images {
		if image.Existing {
			fmt.Fprintf(w, "%s: %s is there already: nothing to do\n", image.Region, image.Image)
			continue
		}
		fmt.Fprintf(w, "%s: would make %q for %s, boot mode %s, of a volume of %d GiB; %d of %d blocks are not zero\n",
			image.Region, o.Name, image.Architecture, image.BootMode, o.VolumeSize, len(d.Blocks), d.Count())
	}
	_, err := fmt.Fprintln(w, "EC2 allows to register images. The EBS direct APIs cannot be tried dry.")
	return err
}

func printLeftovers(w io.Writer, found []ami.Leftover, dry, asJSON bool) error {
	if asJSON {
		return printJSON(w, append([]ami.Leftover{}, found...))
	}
	verb := "removed"
	if dry {
		verb = "would remove"
	}
	for _, l := range found {
		fmt.Fprintf(w, "%s %s in %s (%s, made %s)\n", verb, l.ID, l.Region, l.Why, l.Created.UTC().Format(time.RFC3339))
	}
	_, err := fmt.Fprintf(w, "%s %d leftovers\n", verb, len(found))
	return err
}
