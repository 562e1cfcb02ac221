// Command slipway builds machines without docker buildx: it runs the frontend
// itself, against any BuildKit.
//
// Usage:
//
//	slipway build [flags] YAML [CONTEXT]
//	slipway lock [flags] YAML [CONTEXT]
//
// The files it made go to standard output, progress and errors to standard
// error. Exit codes: 0 done; 1 the build failed; 2 wrong flags; 130 interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/continuity"
	"github.com/docker/go-units"
	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/slipway-build/slipway/frontend"
	"github.com/slipway-build/slipway/internal/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	err := run(ctx, os.Args[1:])
	var wrong usage
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return
	case errors.As(err, &wrong):
		fmt.Fprintln(os.Stderr, "slipway:", err)
		os.Exit(2)
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "slipway: interrupted")
		os.Exit(130)
	}
	for _, s := range errdefs.Sources(err) {
		s.Print(os.Stderr)
	}
	fmt.Fprintln(os.Stderr, "slipway:", err)
	os.Exit(1)
}

// usage is a mistake on the command line.
type usage struct{ error }

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usage{errors.New("give a command: slipway build or slipway lock; see slipway build --help")}
	}
	switch args[0] {
	case "build":
		return build(ctx, args[1:])
	case "lock":
		return lock(ctx, args[1:])
	case "-h", "-help", "--help", "help":
		fmt.Println("Usage:\n\n\tslipway build [flags] YAML [CONTEXT]\n\tslipway lock [flags] YAML [CONTEXT]")
		return flag.ErrHelp
	}
	return usage{fmt.Errorf("unknown command %q; there are build and lock", args[0])}
}

// flags are those of every command.
type flags struct {
	*flag.FlagSet
	builder, progress string
	client.Options
}

func newFlags(name, synopsis string) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError)}
	f.Usage = func() {
		fmt.Fprintf(f.Output(), "Usage: slipway %s\n\n", synopsis)
		f.PrintDefaults()
	}
	f.BuildArgs, f.BuildContexts, f.Attests = map[string]string{}, map[string]string{}, map[string]string{}
	f.StringVar(&f.builder, "builder", "", "`name` of a docker buildx builder, or address of a buildkitd (default: BUILDKIT_HOST, else the current builder)")
	f.StringVar(&f.progress, "progress", "auto", "`kind` of display: auto, plain, tty, quiet or rawjson")
	f.Func("build-arg", "`NAME=VALUE` of an option; without =VALUE the environment's", func(text string) error {
		return pair(f.BuildArgs, text, os.LookupEnv)
	})
	f.Func("build-context", "`NAME=VALUE`: folder, docker-image:// or oci-layout:// that stands for an image of the YAML", func(text string) error {
		return pair(f.BuildContexts, text, nil)
	})
	f.Var((*list)(&f.Platforms), "platform", "`platforms` of the machine, separated by commas (default: the builder's)")
	f.BoolVar(&f.Pull, "pull", false, "ask the registries for images again")
	return f
}

// parse takes flags before and after the other arguments: the YAML and,
// maybe, the folder of the build context.
func (f *flags) parse(args []string) error {
	var rest []string
	for {
		f.SetOutput(io.Discard) // the error is printed once, by main
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			f.SetOutput(os.Stdout)
			f.Usage()
			return err
		}
		if err != nil {
			return usage{err}
		}
		if f.NArg() == 0 {
			break
		}
		rest, args = append(rest, f.Arg(0)), f.Args()[1:]
	}
	if len(rest) == 0 || len(rest) > 2 {
		return usage{errors.New("give one machine YAML and, if it is not the current one, the folder of the build context")}
	}
	f.File, f.Context = rest[0], "."
	if len(rest) == 2 {
		f.Context = rest[1]
	}
	if epoch, ok := os.LookupEnv("SOURCE_DATE_EPOCH"); ok && f.BuildArgs["SOURCE_DATE_EPOCH"] == "" {
		f.BuildArgs["SOURCE_DATE_EPOCH"] = epoch
	}
	return nil
}

// dial connects to the builder and chooses the display.
func (f *flags) dial(ctx context.Context) (*buildkit.Client, progressui.Display, error) {
	display, err := progressui.NewDisplay(os.Stderr, progressui.DisplayMode(f.progress))
	if err != nil {
		return nil, display, usage{fmt.Errorf("--progress: %w", err)}
	}
	c, err := client.Dial(ctx, f.builder)
	return c, display, err
}

// pair adds NAME=VALUE. Where the value is missing it is looked up, and one
// that is not there is left out.
func pair(to map[string]string, text string, lookup func(string) (string, bool)) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok && lookup != nil {
		if value, ok = lookup(name); !ok {
			return nil
		}
	}
	if !ok || name == "" {
		return errors.New("write it as NAME=VALUE")
	}
	to[name] = value
	return nil
}

// list is a flag that may be repeated, or hold several values.
type list []string

func (l *list) String() string { return "" }
func (l *list) Set(text string) error {
	*l = append(*l, strings.Split(text, ",")...)
	return nil
}

// texts is a flag that may be repeated and whose values have commas of their own.
type texts []string

func (t *texts) String() string { return "" }
func (t *texts) Set(text string) error {
	*t = append(*t, text)
	return nil
}

// attestation is a flag with or without attributes.
type attestation struct {
	to   map[string]string
	kind string
}

func (a attestation) String() string   { return "" }
func (a attestation) IsBoolFlag() bool { return true }
func (a attestation) Set(text string) error {
	switch on, err := strconv.ParseBool(text); {
	case err == nil && on:
		a.to[a.kind] = ""
	case err == nil:
		delete(a.to, a.kind)
	case !strings.Contains(text, "="):
		return errors.New("write it as true, false or KEY=VALUE")
	default:
		a.to[a.kind] = text
	}
	return nil
}

func build(ctx context.Context, args []string) error {
	f := newFlags("build", "build [flags] YAML [CONTEXT]")
	f.StringVar(&f.Target, "format", "", "`name` of the output format (default: kernel+initrd)")
	size := f.String("size", "", "`size` of a disk, such as 100M (default: the smallest that fits)")
	f.Var((*texts)(&f.Outputs), "o", "`where` the files go: a folder, - or type=TYPE,KEY=VALUE (default: the current folder)")
	f.Var((*texts)(&f.Outputs), "output", "same as -o")
	f.Var((*texts)(&f.Secrets), "secret", "`id=ID,src=FILE` or id=ID,env=NAME: a secret for the machine")
	f.Var((*texts)(&f.SSH), "ssh", "`ID[=SOCKET|KEY]`: an ssh agent for package folders")
	f.Var((*texts)(&f.CacheFrom), "cache-from", "`type=TYPE,KEY=VALUE`: a cache to take from")
	f.Var((*texts)(&f.CacheTo), "cache-to", "`type=TYPE,KEY=VALUE`: a cache to fill")
	f.BoolVar(&f.NoCache, "no-cache", false, "make everything anew")
	f.Var((*list)(&f.NoCacheFilter), "no-cache-filter", "`components` to make anew, separated by commas")
	f.Var(attestation{f.Attests, "sbom"}, "sbom", "describe the machine's software: true, or `generator=IMAGE`")
	f.Var(attestation{f.Attests, "provenance"}, "provenance", "tell where everything comes from: true, or `mode=max`")
	if err := f.parse(args); err != nil {
		return err
	}
	if *size != "" {
		f.BuildArgs["SIZE"] = *size
	}
	if len(f.Outputs) == 0 {
		f.Outputs = []string{"."}
	}
	c, display, err := f.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	files, err := client.Build(ctx, c, f.Options, display)
	if err != nil {
		return err
	}
	for _, file := range files {
		fmt.Printf("%s\t%s\n", file.Path, units.HumanSize(float64(file.Size)))
		if filepath.Ext(file.Path) == ".raw" {
			name := strings.TrimSuffix(filepath.Base(file.Path), ".raw")
			fmt.Fprintf(os.Stderr, "\nto make an AMI of it: slipway-publish aws --name %s %s\n", name, file.Path)
		}
	}
	return nil
}

func lock(ctx context.Context, args []string) error {
	f := newFlags("lock", "lock [flags] YAML [CONTEXT]")
	f.Func("update", "look only these `images` up again, separated by commas; none with --update= (default: all)", func(names string) error {
		f.BuildArgs[frontend.LockUpdate] = names
		return nil
	})
	if err := f.parse(args); err != nil {
		return err
	}
	c, display, err := f.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	data, err := client.Lock(ctx, c, f.Options, display)
	if err != nil {
		return err
	}
	path := frontend.LockName(f.File)
	if err := continuity.AtomicWriteFile(path, data, 0o644); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
