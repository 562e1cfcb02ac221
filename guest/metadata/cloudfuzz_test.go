package main

import (
	"path"
	"strings"
	"testing"
)

// FuzzCloudConfig parses anything. What it returns is safe to apply: paths stay in
// their area, and everything that becomes a line has no line breaks.
func FuzzCloudConfig(f *testing.F) {
	f.Add("hostname: a\nusers: [default, {name: b, uid: 2000, gecos: B, ssh_authorized_keys: [k]}]")
	f.Add("write_files: [{path: /var/x, content: !!binary aGk=, encoding: gz+b64, permissions: '0600', append: true}]")
	f.Add("ntp: {servers: [10.0.0.1], pools: [pool.ntp.org]}\nmounts: [[LABEL=x, /var/y, auto, 'ro,nofail'], [sdf, /var/z]]")
	f.Add("x: &a [*a]\nusers: *a\nruncmd: [x]\n<<: {a: b}")
	f.Fuzz(func(t *testing.T, text string) {
		config, err := parseCloudConfig([]byte("#cloud-config\n" + text))
		if err != nil && err.Error() == "" {
			t.Error("an empty error")
		}
		config.number()
		oneLine := append(append([]string{config.hostname}, config.keys...), config.time...)
		for _, u := range config.users {
			oneLine = append(append(oneLine, u.name, u.comment), u.keys...)
			if strings.ContainsAny(u.name+u.comment, ":/") && !strings.Contains(u.comment, "/") || u.uid < firstUID || u.uid > lastUID {
				t.Errorf("user %+v", u)
			}
		}
		for _, line := range oneLine {
			if strings.ContainsFunc(line, isControl) {
				t.Errorf("line %q", line)
			}
		}
		size := 0
		for _, file := range config.files {
			if size += len(file.content); file.path == "" || path.IsAbs(file.path) || path.Clean(file.path) != file.path || strings.HasPrefix(file.path, "..") || file.mode > 0o777 {
				t.Errorf("file %+v", file)
			}
		}
		if size > maxSource {
			t.Errorf("files of %d bytes", size)
		}
		for _, m := range config.mounts {
			if m.path == "" || path.IsAbs(m.path) || strings.HasPrefix(m.path, "..") || m.check() != nil {
				t.Errorf("mount %+v", m)
			}
		}
	})
}
