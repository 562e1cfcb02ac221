// Command logship sends the logs that memlogd keeps to other machines: as syslog
// (RFC 5424) over TCP or TLS, or by OTLP over HTTP.
//
//	logship [flags] syslog+tls://HOST:6514 | syslog+tcp://HOST:514 | https://HOST:4318/v1/logs ...
//
// Each destination has a buffer of its own. When it is full, the oldest lines are
// dropped, counted, and reported to the destination once it works again. OTLP also
// follows the environment variables OTEL_EXPORTER_OTLP_HEADERS and
// OTEL_RESOURCE_ATTRIBUTES.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/slipway-build/slipway/guest/memlog"
)

// self is the source of this program's own messages, which it does not send, or
// each failure would make another line.
const self = "logship"

func main() {
	log.SetFlags(0)
	log.SetPrefix("logship: ")
	socket := flag.String("socket", memlog.Socket, "`SOCKET` of memlogd")
	buffer := flag.Int("buffer", 4, "lines to keep for a destination that does not work, in `MiB`")
	var files tlsFiles
	flag.StringVar(&files.authorities, "ca", "", "trust the certificates in `FILE` instead of those of the machine")
	flag.StringVar(&files.certificate, "cert", "", "certificate of this machine in `FILE`")
	flag.StringVar(&files.key, "key", "", "key of -cert in `FILE`")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: logship [flags] DESTINATION...\n\n"+
			"destinations: syslog+tls://HOST:PORT, syslog+tcp://HOST:PORT, https://HOST:PORT/v1/logs, http://HOST:PORT/v1/logs\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *socket, *buffer<<20, files, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

// A sink sends entries to one destination. It returns only after the destination,
// or its kernel, has them. An error with errRejected is final.
type sink interface {
	send(ctx context.Context, batch []memlog.Entry) error
}

var errRejected = errors.New("rejected")

// run ships logs until ctx ends.
func run(ctx context.Context, socket string, buffer int, files tlsFiles, destinations []string) error {
	if len(destinations) == 0 || buffer < 1<<20 {
		return errors.New("no destination, or -buffer is less than 1")
	}
	config, err := files.load()
	if err != nil {
		return err
	}
	var shippers []*shipper
	for _, destination := range destinations {
		sink, err := newSink(ctx, destination, config)
		if err != nil {
			return err
		}
		shippers = append(shippers, newShipper(destination, sink, buffer))
	}
	go receive(ctx, socket, func(e memlog.Entry) {
		for _, s := range shippers {
			s.queue.add(e)
		}
	})
	var all sync.WaitGroup
	for _, s := range shippers {
		all.Go(func() { s.run(ctx) })
	}
	all.Wait()
	return nil
}

// receive passes on the entries of memlogd. If memlogd restarts, it has none of
// the old ones.
func receive(ctx context.Context, socket string, add func(memlog.Entry)) {
	var last time.Time
	for ctx.Err() == nil {
		err := memlog.Query(socket, memlog.DumpFollow, func(e memlog.Entry) {
			if e.Source != self && e.Time.After(last) {
				last = e.Time
				add(e)
			}
		})
		log.Printf("memlogd: %v; trying again", err)
		select {
		case <-ctx.Done():
		case <-time.After(firstDelay):
		}
	}
}

func newSink(ctx context.Context, destination string, config *tls.Config) (sink, error) {
	u, err := url.Parse(destination)
	if err != nil {
		return nil, err
	}
	if u.Host == "" || u.User != nil {
		return nil, fmt.Errorf("destination %s: must be a URL with a host and without a password", u.Redacted())
	}
	switch u.Scheme {
	case "syslog+tls", "syslog+tcp":
		if u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("destination %s: must be SCHEME://HOST:PORT", u)
		}
		if u.Scheme == "syslog+tcp" {
			config = nil
		}
		return &syslog{address: u.Host, tls: config}, nil
	case "https", "http":
		return newOTLP(ctx, u, config)
	}
	return nil, fmt.Errorf("destination %s: the scheme must be syslog+tls, syslog+tcp, https or http", u)
}

// tlsFiles are files in PEM.
type tlsFiles struct{ authorities, certificate, key string }

func (f tlsFiles) load() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.authorities != "" {
		text, err := os.ReadFile(f.authorities)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: no certificates", f.authorities)
		}
	}
	if (f.certificate == "") != (f.key == "") {
		return nil, errors.New("-cert and -key belong together")
	}
	if f.certificate != "" {
		pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
