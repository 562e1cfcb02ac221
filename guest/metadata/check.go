package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// hostFiles are the values that are host names.
var hostFiles = []string{"hostname", "local_hostname"}

// check removes what is not valid: host names, name servers and search domains,
// which other programs read as lines or words. It returns an error that names
// what it has removed.
func (in *instance) check() error {
	var failed []error
	for _, file := range hostFiles {
		if name, ok := in.values[file]; ok {
			if err := checkHostname(name); err != nil {
				failed = append(failed, err)
				delete(in.values, file)
			}
		}
	}
	for i := range in.network {
		l := &in.network[i]
		l.Nameservers = slices.DeleteFunc(slices.Clone(l.Nameservers), func(server string) bool {
			address, err := netip.ParseAddr(server)
			if err == nil && checkLabels(address.Zone(), "_-.") {
				return false
			}
			failed = append(failed, fmt.Errorf("name server %q: not an IP address", server))
			return true
		})
		l.Search = slices.DeleteFunc(slices.Clone(l.Search), func(domain string) bool {
			if domain == "." || domain != "" && len(domain) < 255 && checkLabels(strings.TrimSuffix(domain, "."), "-_") {
				return false
			}
			failed = append(failed, fmt.Errorf("search domain %q: not a domain name", domain))
			return true
		})
	}
	return errors.Join(failed...)
}

// maxHostname is the longest name that Linux accepts, in bytes.
const maxHostname = 64

// checkHostname checks a host name: RFC 1123, section 2.1, and the limit of
// Linux.
func checkHostname(name string) error {
	if name == "" || len(name) > maxHostname || !checkLabels(name, "-") {
		return fmt.Errorf("host name %q: must have at most %d letters, digits, hyphens and dots, and each part must start and end with a letter or digit", name, maxHostname)
	}
	return nil
}

// checkLabels reports whether a text is empty or consists of labels, separated
// by dots: of at most 63 letters, digits, and, in the middle, hyphens. A label
// may also have the other characters in extra anywhere.
func checkLabels(text, extra string) bool {
	if text == "" {
		return true
	}
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte(extra, c) >= 0) {
				return false
			}
		}
	}
	return true
}
