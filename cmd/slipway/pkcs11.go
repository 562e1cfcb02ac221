package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/slipway-build/slipway/cmd/internal/cli"
)

// pinVariable is the environment variable with the PIN of a token. pkcs11-tool
// gets it in the same one, because other users can read command lines.
const pinVariable = "SLIPWAY_PKCS11_PIN"

// A pkcs11Key is a private key that a URI of PKCS #11 names (RFC 7512). It signs
// with OpenSC's pkcs11-tool, which Debian 12 and 13 have in the same form.
// OpenSSL takes such URIs itself, but by an engine that later versions do not load,
// or by a provider that Debian 12 lacks.
type pkcs11Key struct {
	token map[string]string // what pkcs11-tool shows of the token, by its name for it
	slot  string            // in hexadecimal, as pkcs11-tool shows it; "" for any
	label string            // "" for any
	id    []byte            // nil for any

	module    string // path of the library; "" for the one of pkcs11-tool
	pinSource string // file
}

// tokenFields are the attributes of a URI that describe the token, and pkcs11-tool's
// names for them.
var tokenFields = map[string]string{"token": "token label", "manufacturer": "token manufacturer", "model": "token model", "serial": "serial num"}

// parsePKCS11 parses a URI that names a private key.
func parsePKCS11(uri string) (*pkcs11Key, error) {
	rest, ok := strings.CutPrefix(uri, "pkcs11:")
	if !ok {
		return nil, cli.Usagef("%q is not a PKCS #11 URI: it must start with pkcs11:", uri)
	}
	path, query, _ := strings.Cut(rest, "?")
	attributes := map[string]string{}
	for _, part := range []struct{ text, separator string }{{path, ";"}, {query, "&"}} {
		if part.text == "" {
			continue
		}
		for attribute := range strings.SplitSeq(part.text, part.separator) {
			name, value, ok := strings.Cut(attribute, "=")
			value, err := url.PathUnescape(value)
			if _, found := attributes[name]; !ok || found || err != nil {
				// Not the value, which can be a PIN.
				return nil, cli.Usagef("PKCS #11 URI: the attribute %q is repeated, not percent-encoded, or has no value", name)
			}
			attributes[name] = value
		}
	}
	k := &pkcs11Key{token: map[string]string{}}
	for name, value := range attributes {
		switch name {
		case "slot-id":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return nil, cli.Usagef("PKCS #11 URI: slot-id %q: must be a number", value)
			}
			k.slot = fmt.Sprintf("%#x", n)
		case "object":
			k.label = value
		case "id":
			k.id = []byte(value)
		case "type":
			if value != "private" {
				return nil, cli.Usagef("PKCS #11 URI: type %q: must be private", value)
			}
		case "module-path":
			k.module = value
		case "pin-source":
			file, err := url.Parse(value)
			if err != nil || file.Scheme != "" && file.Scheme != "file" || !filepath.IsAbs(file.Path) {
				return nil, cli.Usagef("PKCS #11 URI: pin-source %q: must be file: and an absolute path", value)
			}
			k.pinSource = file.Path
		case "pin-value":
			return nil, cli.Usagef("PKCS #11 URI: other users can read pin-value on the command line: use pin-source or the environment variable %s", pinVariable)
		default:
			field, ok := tokenFields[name]
			if !ok {
				return nil, cli.Usagef("PKCS #11 URI: the attribute %q is not supported", name)
			}
			k.token[field] = value
		}
	}
	if k.label == "" && len(k.id) == 0 {
		return nil, cli.Usagef("PKCS #11 URI: object or id is missing: it must name a key")
	}
	return k, nil
}

// sign signs a message with RSASSA-PKCS1-v1_5 and SHA-256.
func (k *pkcs11Key) sign(ctx context.Context, message []byte) ([]byte, error) {
	slot, flags, err := k.findToken(ctx)
	if err != nil {
		return nil, err
	}
	args := []string{"--slot", slot}
	pin := ""
	if slices.Contains(flags, "login required") {
		args = append(args, "--login")
		if pin, err = k.pin(); err != nil {
			return nil, err
		}
		switch {
		case pin != "":
			args = append(args, "--pin", "env:"+pinVariable)
		case !slices.Contains(flags, "PIN pad present"):
			return nil, fmt.Errorf("the token requires a PIN: set the environment variable %s, or pin-source in the URI", pinVariable)
		}
	}
	id, err := k.findID(ctx, pin, args)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "slipway-sign-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	input, output := filepath.Join(dir, "message"), filepath.Join(dir, "signature")
	if err := os.WriteFile(input, message, 0o600); err != nil {
		return nil, err
	}
	args = append(args, "--sign", "--mechanism", "SHA256-RSA-PKCS", "--id", id, "--input-file", input, "--output-file", output)
	if _, err := k.run(ctx, pin, args...); err != nil {
		return nil, err
	}
	return os.ReadFile(output)
}

// findToken returns the slot of the only token that the URI matches, and its flags.
func (k *pkcs11Key) findToken(ctx context.Context) (slot string, flags []string, err error) {
	out, err := k.run(ctx, "", "--list-token-slots")
	if err != nil {
		return "", nil, err
	}
	var found []string
	for _, record := range records(out, "Slot ") {
		_, number, _ := strings.Cut(record[""], "(")
		number, _, _ = strings.Cut(number, ")")
		matches := number != "" && record["token flags"] != "" && (k.slot == "" || k.slot == number)
		for field, value := range k.token {
			matches = matches && record[field] == value
		}
		if matches {
			found, flags = append(found, fmt.Sprintf("%q", record["token label"])), strings.Split(record["token flags"], ", ")
			slot = number
		}
	}
	switch len(found) {
	case 0:
		return "", nil, fmt.Errorf("no token matches the URI: module-path must be the library of the token; the one of %s is for smart cards", pkcs11Tool)
	case 1:
		return slot, flags, nil
	}
	return "", nil, fmt.Errorf("the URI matches the tokens %s: add serial or slot-id", strings.Join(found, ", "))
}

// findID returns the ID of the only key that the URI matches, in hexadecimal.
// pkcs11-tool signs with the first key if it has only the label.
func (k *pkcs11Key) findID(ctx context.Context, pin string, args []string) (string, error) {
	out, err := k.run(ctx, pin, append(slices.Clone(args), "--list-objects", "--type", "privkey")...)
	if err != nil {
		return "", err
	}
	var found []string
	for _, record := range records(out, "Private Key Object") {
		id := record["ID"]
		if (k.label == "" || record["label"] == k.label) && (len(k.id) == 0 || id == hex.EncodeToString(k.id)) {
			found = append(found, id)
		}
	}
	slices.Sort(found) // the token's order varies
	switch {
	case len(found) == 0:
		return "", errors.New("the token has no private key that matches the URI")
	case len(found) > 1:
		return "", fmt.Errorf("the URI matches %d private keys, with the IDs %q: add id", len(found), found)
	case found[0] == "":
		return "", fmt.Errorf("the key has no ID: set one with %s --set-id", pkcs11Tool)
	}
	return found[0], nil
}

func (k *pkcs11Key) pin() (string, error) {
	if k.pinSource == "" {
		return os.Getenv(pinVariable), nil
	}
	pin, err := os.ReadFile(k.pinSource)
	return strings.TrimRight(string(pin), "\r\n"), err
}

const pkcs11Tool = "pkcs11-tool"

// run runs pkcs11-tool and returns its output. The error has what it printed.
func (k *pkcs11Key) run(ctx context.Context, pin string, args ...string) (string, error) {
	if k.module != "" {
		args = append([]string{"--module", k.module}, args...)
	}
	c := exec.CommandContext(ctx, pkcs11Tool, args...)
	c.Env = append(os.Environ(), pinVariable+"="+pin)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%w: install OpenSC (package opensc)", err)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %s", pkcs11Tool, cmp.Or(strings.Join(strings.Fields(stderr.String()), " "), err.Error()))
	}
	return string(out), nil
}

// records returns the objects that pkcs11-tool lists. Each starts with a line that
// begins with a word, under the key "", and has lines with a field and its value.
func records(out, first string) []map[string]string {
	var all []map[string]string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, first) {
			all = append(all, map[string]string{"": line})
		} else if field, value, ok := strings.Cut(line, ":"); ok && len(all) > 0 {
			all[len(all)-1][strings.TrimSpace(field)] = strings.TrimSpace(value)
		}
	}
	return all
}
