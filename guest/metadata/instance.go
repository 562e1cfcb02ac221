package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// An instance is what a provider knows about this machine.
type instance struct {
	values   map[string]string // by file name
	keys     []string          // SSH public keys in the form of authorized_keys
	userData []byte
	network  []link
	// networkErr is the error of invalid network data; the valid part is in
	// network.
	networkErr error
	// ignored says what has no effect, and what to do about it, a line each.
	ignored []string
}

func newInstance() *instance { return &instance{values: map[string]string{}} }

// set sets a value, unless it is empty or already set.
func (in *instance) set(file, value string) {
	if value != "" && in.values[file] == "" {
		in.values[file] = value
	}
}

// addKeys adds the keys in the texts, one per line.
func (in *instance) addKeys(texts ...string) {
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				in.keys = append(in.keys, line)
			}
		}
	}
}

// first returns the first text that is not empty.
func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// withMask returns an IPv4 address and a netmask in the form 192.0.2.7/24.
func withMask(address, mask string) (string, error) {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return "", err
	}
	bits, err := netip.ParseAddr(mask)
	if err != nil {
		return "", err
	}
	ones, size := net.IPMask(bits.AsSlice()).Size()
	if size == 0 {
		return "", fmt.Errorf("%s is not a netmask", mask)
	}
	return netip.PrefixFrom(ip, ones).String(), nil
}

// decodeBase64 decodes a text and ignores white space in it.
func decodeBase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}
