package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"strings"
)

// apply makes the machine what a #cloud-config says: disks first, because files
// may be on them. If a step fails, it continues with the others.
func (c *cloudConfig) apply(h host, config *config) error {
	var failed []error
	for _, m := range c.mounts {
		failed = append(failed, h.mount(m))
	}
	failed = append(failed, c.writeUsers(config))
	if len(c.time) > 0 {
		failed = append(failed, config.write("ntp/cloud-config.sources", []byte(strings.Join(c.time, "\n")+"\n"), 0o644))
	}
	failed = append(failed, c.writeFiles(h, config))
	log.Printf("#cloud-config: %d users, %d files, %d mounts, %d time sources", len(c.users), len(c.files), len(c.mounts), len(c.time))
	return errors.Join(failed...)
}

// writeUsers writes the users for sshd: lines of passwd(5), and a file of keys
// for each.
func (c *cloudConfig) writeUsers(config *config) error {
	if len(c.users) == 0 {
		return nil
	}
	c.number()
	var failed []error
	var lines strings.Builder
	for _, u := range c.users {
		fmt.Fprintf(&lines, "%s:*:%d:%d:%s:/run/home/%s:/bin/sh\n", u.name, u.uid, u.uid, u.comment, u.name)
		keys := ""
		for _, key := range u.keys {
			keys += key + "\n"
		}
		failed = append(failed, config.write("ssh/users/"+u.name, []byte(keys), 0o644))
	}
	// Last, because sshd reads the others when this file appears.
	return errors.Join(append(failed, config.write("ssh/passwd", []byte(lines.String()), 0o644))...)
}

func (c *cloudConfig) writeFiles(h host, config *config) error {
	if len(c.files) == 0 {
		return nil
	}
	variable, err := openConfig(h.variable)
	if err != nil {
		return err
	}
	defer variable.close()
	var failed []error
	for _, f := range c.files {
		to := config
		if f.area == variableArea {
			to = variable
		}
		if f.append {
			old, err := to.readAtMost(f.path, maxBody)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, fmt.Errorf("write_files: %s: %w", f.path, err))
				continue
			}
			f.content = append(old, f.content...)
		}
		if err := to.write(f.path, f.content, os.FileMode(f.mode)); err != nil {
			failed = append(failed, fmt.Errorf("write_files: %w", err))
		}
	}
	return errors.Join(failed...)
}
