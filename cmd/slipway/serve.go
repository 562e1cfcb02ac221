package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-build/slipway/cmd/internal/cli"
	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/httpboot"
	"github.com/slipway-build/slipway/publisher/artifact"
)

// serveFlags are the flags of slipway serve.
type serveFlags struct {
	listen, certificate, key string
	choice                   artifact.Choice
}

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve [flags] FOLDER|FILE|oci://REGISTRY/REPOSITORY[:TAG][@DIGEST]",
		Short: "Boot machines over HTTP",
		Long: "Serve machines to UEFI HTTP boot and to iPXE: unified kernel images, ISOs and disks, and kernels with an initramfs.\n" +
			"A disk in a registry is read from there, without a file in between.",
		Example: `  slipway serve out
  slipway serve --listen 192.0.2.1:8080 out/aws.efi
  slipway serve oci://registry.example.com/machines/aws:v1`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return cli.Usagef("requires the folder of a build, a file or oci://REGISTRY/REPOSITORY:TAG")
			}
			return nil
		},
	}
	var f serveFlags
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8080", "`address` and port")
	flags.StringVar(&f.certificate, "tls-cert", "", "`file` with the certificate chain in PEM, for HTTPS")
	flags.StringVar(&f.key, "tls-key", "", "`file` with the private key of --tls-cert in PEM")
	flags.StringVar(&f.choice.Architecture, "arch", "", "`architecture` of a disk in a registry (default: this machine's, if there are several)")
	flags.StringVar(&f.choice.Format, "format", "", "`name` of the format of a disk in a registry (default: raw, if there are several)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return f.serve(cmd, args[0]) }
	return cmd
}

// serve serves until the context ends.
func (f *serveFlags) serve(cmd *cobra.Command, source string) error {
	if (f.certificate == "") != (f.key == "") {
		return cli.Usagef("--tls-cert and --tls-key belong together")
	}
	machines, stop, err := f.open(cmd, source)
	if err != nil {
		return err
	}
	defer stop()
	found, err := machines()
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%s has nothing to boot: it needs a UKI, an ISO, a disk, or a kernel with an initramfs", source)
	}
	listener, err := new(net.ListenConfig).Listen(cmd.Context(), "tcp", f.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	scheme := "http"
	if f.certificate != "" {
		scheme = "https"
		pair, err := tls.LoadX509KeyPair(f.certificate, f.key)
		if err != nil {
			return errors.Join(fmt.Errorf("--tls-cert: %w", err), listener.Close())
		}
		listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, CipherSuites: cipherSuites()})
	}
	address := listener.Addr().(*net.TCPAddr)
	explain(cmd.OutOrStdout(), scheme, address, found)
	server := httpboot.NewServer(&httpboot.Handler{Machines: machines, Log: log.New(cmd.ErrOrStderr(), "", log.Ltime)})
	ended := context.AfterFunc(cmd.Context(), func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			server.Close()
		}
	})
	defer ended()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// cipherSuites returns those of TLS 1.2 that the server accepts: Go's own, and
// two for firmware without elliptic curves, such as EDK II before 2023, which
// offers DHE and RSA key exchange only. Go prefers its own.
func cipherSuites() []uint16 {
	suites := []uint16{tls.TLS_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
	for _, s := range tls.CipherSuites() {
		suites = append(suites, s.ID)
	}
	return suites
}

// open returns what lists the machines of a source, and a function that closes
// the source.
func (f *serveFlags) open(cmd *cobra.Command, source string) (machines func() ([]httpboot.Machine, error), stop func() error, err error) {
	constant := func(m httpboot.Machine, err error) (func() ([]httpboot.Machine, error), func() error, error) {
		return func() ([]httpboot.Machine, error) { return []httpboot.Machine{m}, nil }, func() error { return nil }, err
	}
	if artifact.IsReference(source) {
		ref, err := artifact.ParseReference(source)
		if err != nil {
			return nil, nil, cli.Usagef("%w", err)
		}
		choice := f.choice
		choice.Architecture = goArch(choice.Architecture)
		choice.Preferred = artifact.Preference{Architecture: runtime.GOARCH, Format: "raw"}
		a, err := artifact.Open(cmd.Context(), ref, choice)
		if err != nil {
			return nil, nil, err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "%s\n", a.Reference)
		return constant(httpboot.File(a.Name, func() (sparse.Content, io.Closer, error) {
			return sparse.FromReader(a, a.Size), io.NopCloser(nil), nil
		}))
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return constant(httpboot.File(filepath.Base(source), func() (sparse.Content, io.Closer, error) {
			file, err := os.Open(source)
			if err != nil {
				return sparse.Content{}, nil, err
			}
			info, err := file.Stat()
			if err != nil {
				return sparse.Content{}, nil, errors.Join(err, file.Close())
			}
			return sparse.FromReader(file, info.Size()), file, nil
		}))
	}
	root, err := os.OpenRoot(source)
	if err != nil {
		return nil, nil, err
	}
	return func() ([]httpboot.Machine, error) { return httpboot.Folder(root) }, root.Close, nil
}

// explain prints the URLs of machines, and how to boot one.
func explain(w io.Writer, scheme string, address *net.TCPAddr, machines []httpboot.Machine) {
	base := scheme + "://" + address.String() + "/"
	fmt.Fprintln(w, base)
	for _, m := range machines {
		if m.UEFI != "" {
			fmt.Fprintf(w, "UEFI  %s%s\n", base, m.UEFI)
		}
		fmt.Fprintf(w, "iPXE  %s%s.ipxe\n", base, m.Name)
	}
	switch {
	case address.IP.IsLoopback() && scheme == "http":
		fmt.Fprintf(w, "\nto boot: qemu-system-x86_64 -m 1G -nographic -nic user,model=virtio,bootfile=http://10.0.2.2:%d/boot.ipxe\n", address.Port)
	default:
		fmt.Fprintf(w, "\nto boot, in iPXE: dhcp && chain %sboot.ipxe\n", strings.Replace(base, "://[::]:", "://ADDRESS:", 1))
	}
}
