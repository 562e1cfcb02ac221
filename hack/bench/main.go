// Command bench measures how long builds take with docker buildx and with
// slipway: a machine of ten packages, compared with lower bounds ("floors"),
// and machines of many components.
//
//	go run ./hack/bench [-run REGEXP] [-count N]
//
// A case is named CLIENT/FORMAT/COMPRESSION/WHAT or CLIENT/COUNT
// components/WHAT. WHAT is one of
//
//	cold       buildkitd is empty; the images come from the local registry
//	unchanged  the build is repeated
//	yaml       one line of the YAML has changed
//	service    the image of one service has changed
//	kernel     the image of the kernel has changed
//	export     floor: BuildKit exports the same files from a cached FROM scratch and COPY
//
// The floors plain/COMPRESSION/WHAT come from a program without BuildKit: pull
// downloads the blobs of the images, pack recompresses their layers on all
// processors, and service does both for one image.
//
// Bench prints a table of times and goals, or with JSON=1 in the environment a
// JSON object: the median, min and max of each case in seconds. It requires the
// local stack and the project's images: run "make bench".
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/slipway-build/slipway/internal/testutil/stack"
)

func main() {
	only := flag.String("run", "", "`regexp` of the cases to measure (default: all)")
	count := flag.Int("count", 5, "number of measurements of each case")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cases, err := regexp.Compile(*only)
	if err == nil {
		err = bench(ctx, &results{cases: cases, times: map[string][]time.Duration{}}, *count)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context, r *results, count int) error {
	root, err := stack.Root()
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	b, err := newBench(ctx, r)
	if err != nil {
		return err
	}
	defer b.close()
	for range count {
		if err := b.round(ctx); err != nil {
			return err
		}
	}
	if err := b.scale(ctx, count); err != nil {
		return err
	}
	if os.Getenv("JSON") != "" {
		return json.NewEncoder(os.Stdout).Encode(r.summaries())
	}
	return r.print()
}

// results are the selected cases and their times.
type results struct {
	cases *regexp.Regexp
	times map[string][]time.Duration
	order []string
}

// wants reports whether one of the cases is selected.
func (r *results) wants(names ...string) bool { return slices.ContainsFunc(names, r.cases.MatchString) }

// time measures a case, if it is selected.
func (r *results) time(name string, do func() error) error {
	if !r.wants(name) {
		return nil
	}
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	took := time.Since(start)
	if r.times[name] == nil {
		r.order = append(r.order, name)
	}
	r.times[name] = append(r.times[name], took)
	fmt.Fprintf(os.Stderr, "%-40s %6.2f s\n", name, took.Seconds())
	return nil
}

type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (r *results) summaries() map[string]summary {
	out := map[string]summary{}
	for name, times := range r.times {
		sorted := slices.Sorted(slices.Values(times))
		middle := (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
		out[name] = summary{middle.Seconds(), sorted[0].Seconds(), sorted[len(sorted)-1].Seconds()}
	}
	return out
}

func (r *results) print() error {
	all := r.summaries()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\tmedian s\tmin s\tmax s\t")
	for _, name := range r.order {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t\n", name, all[name].Median, all[name].Min, all[name].Max)
	}
	fmt.Fprintln(w, "\ngoal\tratio\tat most\t\t")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if goal, floor, ok := goal(name, all); ok {
			fmt.Fprintf(w, "%s\t%.2f\t%.1f\t\n", name, all[name].Median/floor, goal)
		}
	}
	return w.Flush()
}

// goal returns the goal of a case, as a multiple of its floor, and the floor in
// seconds. ok is false if the case has no goal or its floor was not measured.
func goal(name string, all map[string]summary) (most, floor float64, ok bool) {
	dir, what := name[:strings.LastIndex(name, "/")], name[strings.LastIndex(name, "/")+1:]
	floors := map[string][]string{}
	if words := strings.Split(dir, "/"); len(words) == 3 {
		plain := "plain/" + words[2] + "/"
		floors["cold"] = []string{plain + "pull", plain + "pack"}
		floors["unchanged"] = []string{dir + "/export"}
		floors["service"] = []string{dir + "/export", plain + "service"}
		most = map[string]float64{"cold": 1.3, "unchanged": 1.2, "service": 1.5}[what]
	} else if client, ok := strings.CutSuffix(dir, fmt.Sprintf("/%d components", sizes[len(sizes)-1])); ok {
		floors["unchanged"] = []string{fmt.Sprintf("%s/%d components/unchanged", client, sizes[0])}
		most = 3
	}
	for _, f := range floors[what] {
		if _, ok := all[f]; !ok {
			return 0, 0, false
		}
		floor += all[f].Median
	}
	return most, floor, len(floors[what]) > 0
}
