// Command awsfake serves package awstest on loopback: a fake AWS account for
// demos and for tests in other languages.
//
//	go run ./hack/awsfake -listen 127.0.0.1:4580 &
//	eval "$(curl -s http://127.0.0.1:4580/_awstest/env)"
//	slipway-publish aws disk.raw
//	curl -s http://127.0.0.1:4580/_awstest/snapshots
//	go run ./hack/awsfake -save snap-0123456789abcdef0 -o disk.raw -listen 127.0.0.1:4580
//
// In addition to the AWS services, it answers these GET requests without a
// signature:
//
//	/_awstest/env                        shell commands that set a client's environment
//	/_awstest/snapshots                  all snapshots, as JSON
//	/_awstest/snapshots/REGION/ID/disk   the whole volume of a snapshot
//	/_awstest/orphans                    resources that no image uses, one per line
//	/_awstest/violations                 invalid requests, one per line
//	/_awstest/requests                   all requests, one per line
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/slipway-build/slipway/publisher/awstest"
)

func main() {
	var knobs awstest.Knobs
	listen := flag.String("listen", "127.0.0.1:4580", "loopback address to serve on, or of the fake to read from with -save")
	bucket := flag.String("bucket", "slipway", "S3 bucket to create in "+awstest.Region)
	flag.DurationVar(&knobs.Latency, "latency", 0, "time before each answer")
	flag.DurationVar(&knobs.Settle, "settle", 0, "time for which snapshots, images, copies and imports stay pending")
	flag.DurationVar(&knobs.Grace, "grace", 0, "time for which a new snapshot or image does not exist yet")
	flag.Float64Var(&knobs.PutRate, "rate", 0, "blocks per second that a snapshot accepts; 0 means no limit (AWS: 1000)")
	flag.BoolVar(&knobs.EncryptByDefault, "encrypt", false, "encrypt all new snapshots")
	flag.IntVar(&knobs.PendingSnapshots, "pending", 0, "quota of pending snapshots (default 100, as on AWS)")
	flag.IntVar(&knobs.Images, "images", 0, "quota of images (default 50000, as on AWS)")
	flag.Func("deny", "comma-separated `operations` that the account may not call, for example ec2:RegisterImage,ebs:*", func(s string) error {
		knobs.Denied = strings.Split(s, ",")
		return nil
	})
	bandwidth := flag.Int("bandwidth", 0, "bits per second that the fake receives, on all connections together; 0 means no limit")
	seed := flag.Uint64("seed", 0, "seed of a schedule of faults; 0 means no faults")
	probability := flag.Float64("faults", 0.05, "probability that a request fails, with -seed")
	save := flag.String("save", "", "instead of serving, save the volume of this `snapshot` from the fake at -listen")
	region := flag.String("region", awstest.Region, "region of the snapshot, with -save")
	output := flag.String("o", "", "output `file`, with -save")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var err error
	if *save != "" {
		err = download(ctx, "http://"+*listen+"/_awstest/snapshots/"+*region+"/"+*save+"/disk", *output)
	} else {
		if *seed != 0 {
			knobs.Faults = awstest.Random(*seed, *probability, 3, awstest.Throttle, awstest.Internal, awstest.Reset, awstest.LostReset, awstest.LostError)
		}
		err = serve(ctx, *listen, *bucket, *bandwidth, knobs)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "awsfake: %v\n", err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, address, bucket string, bandwidth int, knobs awstest.Knobs) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("-listen %s: not a loopback address; use for example 127.0.0.1:4580", address)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if bandwidth > 0 {
		listener = slowListener{listener, rate.NewLimiter(rate.Limit(bandwidth/8), slowPiece)}
	}
	fake := awstest.New(knobs)
	defer fake.Close()
	if bucket != "" {
		fake.CreateBucket(awstest.Region, bucket)
	}
	url := "http://" + listener.Addr().String()
	server := &http.Server{Handler: handler(fake, url), ReadHeaderTimeout: time.Minute}
	go func() {
		<-ctx.Done()
		server.Close()
	}()
	for _, v := range awstest.Env(url) {
		fmt.Println("export " + v)
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// slowPiece is the number of bytes that a slow line delivers at once.
const slowPiece = 4 << 10

// A slowListener is a server behind a slow line, which all connections share.
type slowListener struct {
	net.Listener
	limit *rate.Limiter
}

func (l slowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		// The client must wait for the line, not for a large buffer. A smaller one
		// would be slower than the line.
		err = tcp.SetReadBuffer(16 * slowPiece)
	}
	return slowConn{conn, l.limit}, err
}

type slowConn struct {
	net.Conn
	limit *rate.Limiter
}

func (c slowConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), slowPiece)])
	_ = c.limit.WaitN(context.Background(), n) // n is at most the burst, and the context never ends
	return n, err
}

// handler returns a handler for the fake and for the requests below /_awstest/.
func handler(fake *awstest.Server, url string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_awstest/env", func(w http.ResponseWriter, _ *http.Request) {
		for _, v := range awstest.Env(url) {
			fmt.Fprintln(w, "export "+v)
		}
	})
	mux.HandleFunc("GET /_awstest/snapshots", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(append([]awstest.SnapshotInfo{}, fake.Snapshots()...))
	})
	mux.HandleFunc("GET /_awstest/snapshots/{region}/{id}/disk", func(w http.ResponseWriter, r *http.Request) {
		disk, err := fake.Disk(r.PathValue("region"), r.PathValue("id"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(disk, 0, disk.Size))
	})
	lines(mux, "orphans", fake.Orphans)
	lines(mux, "violations", func() []string { return texts(fake.Violations()) })
	lines(mux, "requests", func() []string { return texts(fake.Requests()) })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_awstest/") {
			mux.ServeHTTP(w, r)
			return
		}
		fake.ServeHTTP(w, r) // a mux would redirect S3 keys that are not clean paths
	})
}

func lines(mux *http.ServeMux, name string, list func() []string) {
	mux.HandleFunc("GET /_awstest/"+name, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, line := range list() {
			fmt.Fprintln(w, line)
		}
	})
}

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, one := range list {
		out = append(out, one.String())
	}
	return out
}

// download saves a volume to a file that is sparse where the volume is zero.
func download(ctx context.Context, url, name string) error {
	if name == "" {
		return errors.New("-save needs -o FILE")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 1<<10))
		return fmt.Errorf("%s: %s: %s", url, response.Status, strings.TrimSpace(string(text)))
	}
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if err = sparse(file, response.Body, response.ContentLength); err != nil {
		file.Close()
		return fmt.Errorf("save %s: %w", url, err)
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), name)
}

func sparse(file *os.File, from io.Reader, size int64) error {
	if err := file.Truncate(size); err != nil {
		return err
	}
	block, zeros := make([]byte, awstest.BlockSize), make([]byte, awstest.BlockSize)
	for at := int64(0); at < size; at += awstest.BlockSize {
		if _, err := io.ReadFull(from, block); err != nil {
			return err
		}
		if string(block) == string(zeros) {
			continue
		}
		if _, err := file.WriteAt(block, at); err != nil {
			return err
		}
	}
	return nil
}
