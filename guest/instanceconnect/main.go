// Command instance-connect prints the keys that EC2 Instance Connect has pushed
// for a user. sshd runs it at each login as its AuthorizedKeysCommand, with the
// name of the user and the fingerprint of the offered key:
//
//	instance-connect USER [SHA256:FINGERPRINT]
//
// The keys come from the instance metadata service, which anything on the network
// of the machine could imitate. A key is printed only if
//
//   - the firmware names the instance that the service names,
//   - the certificate of the signer is for this region's signer, valid, and leads
//     to a root of Amazon,
//   - a current OCSP response says for each certificate below the root that it is
//     not revoked,
//   - the signer has signed the key, with the ID of this instance and a time that
//     has not passed.
//
// The protocol is that of
// https://github.com/aws/aws-ec2-instance-connect-config.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"regexp"
	"strings"
	"time"
)

// timeout is for everything, because a login waits.
const timeout = 10 * time.Second

func main() {
	endpoint := flag.String("endpoint", "http://169.254.169.254", "`URL` of the metadata service")
	roots := flag.String("roots", "/usr/share/instance-connect/roots.pem", "`FILE` with trusted certificates")
	flag.Parse()
	log.SetFlags(0)
	log.SetPrefix("instance-connect: ")
	if flag.NArg() < 1 || flag.NArg() > 2 {
		log.Fatal("usage: instance-connect USER [FINGERPRINT]")
	}
	instance := instanceOf("/")
	if instance == "" {
		return // not on EC2
	}
	pem, err := os.ReadFile(*roots)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		log.Fatalf("%s: no certificates", *roots)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	v := &verifier{imds: newClient(*endpoint), roots: pool, instance: instance, now: time.Now()}
	keys, err := v.keys(ctx, flag.Arg(0), flag.Arg(1))
	if err != nil {
		log.Fatalf("%q: %v", flag.Arg(0), err)
	}
	for _, key := range keys {
		log.Printf("%q: key %s of EC2 Instance Connect, request %q, for IAM principal %q", flag.Arg(0), key.fingerprint, key.request, key.caller)
		fmt.Println(key.line)
	}
}

// unknownInstance stands for a machine on Xen, whose firmware does not know the
// ID of the instance.
const unknownInstance = "ec2"

var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,32}$`)

// instanceOf returns the ID of the instance that the firmware names, or "" if the
// machine is not on EC2.
func instanceOf(root string) string {
	if uuid, err := os.ReadFile(root + "sys/hypervisor/uuid"); err == nil {
		if strings.HasPrefix(string(uuid), "ec2") {
			return unknownInstance
		}
		return ""
	}
	tag, err := os.ReadFile(root + "sys/devices/virtual/dmi/id/board_asset_tag")
	if id := strings.TrimSpace(string(tag)); err == nil && instanceID.MatchString(id) {
		return id
	}
	return ""
}

// A verifier gets and verifies the keys of one instance.
type verifier struct {
	imds     *client
	roots    *x509.CertPool
	instance string // as the firmware names it
	now      time.Time
}

var (
	userName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}$`)
	zoneName = regexp.MustCompile(`^((?:[a-z]+-){2,3}[0-9]+)[a-z]$`)
)

// domains are those of the partitions of AWS.
var domains = []string{"amazonaws.com", "amazonaws.com.cn", "c2s.ic.gov", "sc2s.sgov.gov"}

// keys returns the valid keys of a user. If the fingerprint is not empty, it
// returns only the key that has it.
func (v *verifier) keys(ctx context.Context, user, fingerprint string) ([]key, error) {
	if !userName.MatchString(user) {
		return nil, errors.New("not a name of a user")
	}
	if err := v.imds.authorize(ctx); err != nil {
		return nil, err
	}
	id, err := v.imds.must(ctx, "instance-id")
	switch {
	case err != nil:
		return nil, err
	case !instanceID.MatchString(id) || v.instance != unknownInstance && id != v.instance:
		return nil, fmt.Errorf("the metadata service is that of instance %q, the firmware names %q", id, v.instance)
	}
	list, ok, err := v.imds.get(ctx, "managed-ssh-keys/active-keys/"+user+"/")
	if err != nil || !ok {
		return nil, err // most users have none
	}
	signer, err := v.signer(ctx)
	if err != nil {
		return nil, err
	}
	return parseKeys(list, signer, id, fingerprint, v.now)
}

// signerName returns the common name that the certificate of the signer must
// have.
func (v *verifier) signerName(ctx context.Context) (string, error) {
	zone, err := v.imds.must(ctx, "placement/availability-zone")
	if err != nil {
		return "", err
	}
	region := zoneName.FindStringSubmatch(zone)
	if region == nil {
		return "", fmt.Errorf("availability zone %q", zone)
	}
	domain, err := v.imds.must(ctx, "services/domain")
	if err != nil {
		return "", err
	}
	for _, known := range domains {
		if domain == known {
			return "managed-ssh-signer." + region[1] + "." + domain, nil
		}
	}
	return "", fmt.Errorf("unknown domain %q", domain)
}
