package httpboot

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/slipway-build/slipway/exporter/sparse"
	"github.com/slipway-build/slipway/internal/printable"
)

// A Handler serves machines. It answers GET and HEAD requests, with ranges, for
// the paths in the package comment, and nothing else.
type Handler struct {
	// Machines returns the machines. It is called for each request, so that new
	// builds are served without a restart.
	Machines func() ([]Machine, error)
	// Log gets a line for each request.
	Log *log.Logger
}

// NewServer returns a server with limits for clients from the network.
func NewServer(h *Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ErrorLog:          log.New(io.Discard, "", 0), // of connections, which clients cause at will
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second, // requests have no body
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
}

// ServeHTTP implements [http.Handler].
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	answer := &recorder{ResponseWriter: w, status: http.StatusOK}
	err := h.serve(answer, r)
	if err != nil && !answer.written {
		http.Error(answer, err.Error(), statusOf(err))
	}
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	line := fmt.Sprintf("%s %s %.200q %d %d bytes in %.1f s", host, printable.Line(r.Method), r.URL.Path, answer.status, answer.bytes, time.Since(start).Seconds())
	if err != nil {
		line += ": " + printable.Line(err.Error())
	}
	h.Log.Print(line)
}

// A recorder knows what was answered.
type recorder struct {
	http.ResponseWriter
	status  int
	bytes   int64
	written bool
}

func (r *recorder) WriteHeader(status int) {
	r.status, r.written = status, true
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	r.written = true
	n, err := r.ResponseWriter.Write(p)
	r.bytes += int64(n)
	return n, err
}

var (
	errNotFound = errors.New("not found")
	errMethod   = errors.New("only GET and HEAD are supported")
)

func statusOf(err error) int {
	switch {
	case errors.Is(err, errNotFound):
		return http.StatusNotFound
	case errors.Is(err, errMethod):
		return http.StatusMethodNotAllowed
	}
	return http.StatusInternalServerError
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return errMethod
	}
	machines, err := h.Machines()
	if err != nil {
		return err
	}
	name, found := strings.CutPrefix(r.URL.Path, "/")
	switch {
	case !found:
		return errNotFound
	case name == "":
		return respond(w, r, typeText, text(list(machines)))
	case name == "boot.ipxe" && len(machines) > 0:
		return respond(w, r, typeText, text(menu(machines)))
	}
	for _, m := range machines {
		rest, found := strings.CutPrefix(name, m.Name)
		if name == m.UEFI || found && (rest == ".ipxe" || rest == "/kernel" || rest == "/initrd.img") {
			return m.serve(w, r, name)
		}
	}
	return errNotFound
}

// serve answers a request for a path of the machine.
func (m Machine) serve(w http.ResponseWriter, r *http.Request, name string) error {
	if name == m.UEFI {
		c, closer, err := m.file()
		if err != nil {
			return err
		}
		defer closer.Close()
		return respond(w, r, m.contentType, c)
	}
	b, closer, err := m.boot()
	if err != nil {
		return err
	}
	defer closer.Close()
	switch strings.TrimPrefix(name, m.Name) {
	case "/kernel":
		return respond(w, r, typeData, b.Kernel)
	case "/initrd.img":
		return respond(w, r, typeData, b.Initrd)
	}
	script, err := m.script(b.Cmdline)
	if err != nil {
		return err
	}
	return respond(w, r, typeText, text(script))
}

func text(s string) sparse.Content { return sparse.Bytes([]byte(s)) }

// list names the machines and what boots them.
func list(machines []Machine) string {
	var b strings.Builder
	for _, m := range machines {
		fmt.Fprintf(&b, "%s\n", m.Name)
		if m.UEFI != "" {
			fmt.Fprintf(&b, "  UEFI  /%s\n", m.UEFI)
		}
		fmt.Fprintf(&b, "  iPXE  /%s.ipxe\n", m.Name)
	}
	return b.String()
}

// respond sends a content, or the range of it that the client wants.
func respond(w http.ResponseWriter, r *http.Request, contentType string, c sparse.Content) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-cache")
	body := &failing{r: io.NewSectionReader(c, 0, c.Size)}
	http.ServeContent(w, r, "", time.Time{}, body)
	return body.err
}

// failing remembers the error of a reader, for the log.
type failing struct {
	r   *io.SectionReader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

func (f *failing) Seek(offset int64, whence int) (int64, error) { return f.r.Seek(offset, whence) }
