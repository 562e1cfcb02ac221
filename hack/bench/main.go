// Command bench measures how long builds take with docker buildx and with
// slipway: a machine of ten packages, compared with lower bounds ("floors"),
// and machines of many components.
//
//	go run ./hack/bench [-short] [-run REGEXP] [-count N]
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
// A case peers/LAYERS/CORES/WHAT/PROGRAM compares programs on the same images, with
// layers in a compression, on one or two cores. The programs are slipway, buildx
// (docker buildx) and, if LINUXKIT has its path, linuxkit. WHAT is also
//
//	registry-cache    buildkitd is empty, and a registry has a cache of the machine
//	release-cache     buildkitd is empty, and the frontend's release has packed the packages
//	unchanged-locked  unchanged, with a lock beside the machine YAML
//
// With LINUXKIT, the goals are multiples of its times, otherwise ratios are those
// to a plain program, which has no goals. LinuxKit has no cache in a registry:
// there, its time is the cold one. -short measures these cases once, with zstd
// layers and two cores.
//
// Bench prints a table of times, processor times of all processes, and goals, or with JSON=1 in the environment a
// JSON object: the median, min and max of each case in seconds, and the median of
// the processor time. It requires the
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
	short := flag.Bool("short", false, "compare the programs once")
	flag.Parse()
	if *short {
		*only, *count = `^peers/zstd/2-cores/`, 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cases, err := regexp.Compile(*only)
	if err == nil {
		err = bench(ctx, &results{cases: cases, samples: map[string][]sample{}}, *count)
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
	cases   *regexp.Regexp
	spent   func() time.Duration // processor time of all processes so far
	samples map[string][]sample
	order   []string
}

// A sample is one measurement: elapsed time and processor time.
type sample struct{ elapsed, processor time.Duration }

// wants reports whether one of the cases is selected.
func (r *results) wants(names ...string) bool { return slices.ContainsFunc(names, r.cases.MatchString) }

// time measures a case, if it is selected.
func (r *results) time(name string, do func() error) error {
	if !r.wants(name) {
		return nil
	}
	spent, start := r.spent(), time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	s := sample{time.Since(start), r.spent() - spent}
	if r.samples[name] == nil {
		r.order = append(r.order, name)
	}
	r.samples[name] = append(r.samples[name], s)
	fmt.Fprintf(os.Stderr, "%-50s %6.2f s, processor %6.2f s\n", name, s.elapsed.Seconds(), s.processor.Seconds())
	return nil
}

type summary struct {
	Median    float64 `json:"median"`
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`
	Processor float64 `json:"processor"` // median
}

func (r *results) summaries() map[string]summary {
	out := map[string]summary{}
	for name, samples := range r.samples {
		var elapsed, processor []time.Duration
		for _, s := range samples {
			elapsed, processor = append(elapsed, s.elapsed), append(processor, s.processor)
		}
		slices.Sort(elapsed)
		slices.Sort(processor)
		out[name] = summary{median(elapsed), elapsed[0].Seconds(), elapsed[len(elapsed)-1].Seconds(), median(processor)}
	}
	return out
}

// median returns the median of sorted times in seconds.
func median(sorted []time.Duration) float64 {
	return ((sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2).Seconds()
}

func (r *results) print() error {
	all := r.summaries()
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "case\tmedian s\tmin s\tmax s\tprocessor s\t")
	for _, name := range r.order {
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t\n", name, all[name].Median, all[name].Min, all[name].Max, all[name].Processor)
	}
	printPeers(w, all)
	fmt.Fprintln(w, "\ngoal\tratio\tat most\t\t\t")
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if goal, floor, ok := goal(name, all); ok {
			fmt.Fprintf(w, "%s\t%.2f\t%.1f\t\t\t\n", name, all[name].Median/floor, goal)
		}
	}
	return w.Flush()
}

// goal returns the goal of a case, as a multiple of its floor, and the floor in
// seconds. ok is false if the case has no goal or its floor was not measured.
func goal(name string, all map[string]summary) (most, floor float64, ok bool) {
	if strings.HasPrefix(name, "peers/") {
		return 0, 0, false
	}
	dir, what := name[:strings.LastIndex(name, "/")], name[strings.LastIndex(name, "/")+1:]
	floors := map[string][]string{}
	if words := strings.Split(dir, "/"); len(words) == 3 {
		plain := "plain/" + words[2] + "/"
		floors["cold"] = []string{plain + "pull", plain + "pack"}
		floors["unchanged"] = []string{dir + "/export"}
		floors["service"] = []string{dir + "/export", plain + "service"}
		most = map[string]float64{"cold": 1.3, "unchanged": 1.2, "service": 1.5}[what]
	} else if client, ok := strings.CutSuffix(dir, fmt.Sprintf("/%d components", sizes[len(sizes)-1])); ok {
		for _, what := range []string{"unchanged", "unchanged-locked"} {
			floors[what] = []string{fmt.Sprintf("%s/%d components/%s", client, sizes[0], what)}
		}
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
