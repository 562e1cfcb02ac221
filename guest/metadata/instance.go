package main

import (
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// instance is what a provider says about this machine.
type instance struct {
	values   map[string]string // by file name
	keys     []string          // ssh public keys, in authorized_keys form
	userData []byte
	network  []link
	// networkErr tells what of the network data could not be understood; the rest is in network.
	networkErr error
}

func newInstance() *instance { return &instance{values: map[string]string{}} }

// set keeps the first value that is not empty.
func (in *instance) set(file, value string) {
	if value != "" && in.values[file] == "" {
		in.values[file] = value
	}
}

// addKeys adds the keys in the texts, one a line.
func (in *instance) addKeys(texts ...string) {
	for _, text := range texts {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" {
				in.keys = append(in.keys, line)
			}
		}
	}
}

// first gives the first text that is not empty.
func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// withMask gives an IPv4 address with a netmask as 192.0.2.7/24.
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
		return "", fmt.Errorf("%s is no netmask", mask)
	}
	return netip.PrefixFrom(ip, ones).String(), nil
}

// decodeBase64 ignores white space around and in the text.
func decodeBase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}
