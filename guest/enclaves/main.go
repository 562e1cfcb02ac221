// Command enclaves sets CPUs and memory of an EC2 instance aside for Nitro
// enclaves, as the allocator of nitro-cli does. It takes whole cores and huge pages
// of one NUMA node, and writes the CPUs to the driver, which takes them offline.
//
// Usage: enclaves [-cpus N] [-memory MIB]
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("enclaves: ")
	cpus := flag.Int("cpus", 2, "`number` of CPUs for all enclaves together")
	memory := flag.Int("memory", 512, "memory for all enclaves together in `MiB`")
	flag.Parse()
	if flag.NArg() > 0 || *cpus < 1 || *memory < 1 {
		flag.Usage()
		os.Exit(2)
	}
	a := allocator{"/sys"}
	pool, err := a.allocate(*cpus, *memory)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("%d MiB and the CPUs %s are for enclaves", *memory, pool)
}

// An allocator works on the sysfs in a directory.
type allocator struct{ sys string }

// allocate sets CPUs and memory in MiB aside and returns the list of CPUs. It tries
// the NUMA nodes in order.
func (a allocator) allocate(cpus, memory int) (string, error) {
	pool := filepath.Join(a.sys, "module/nitro_enclaves/parameters/ne_cpus")
	if _, err := os.Stat(pool); errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("the driver nitro_enclaves is not loaded: load it with the package modprobe, and start the instance with enclaves enabled")
	}
	// The driver makes its device when it finds that of the hypervisor.
	if _, err := os.Stat(filepath.Join(a.sys, "class/misc/nitro_enclaves")); errors.Is(err, fs.ErrNotExist) {
		return "", errors.New("this machine cannot run enclaves: start an EC2 instance of a type that supports them, with --enclave-options Enabled=true")
	}
	nodes, err := filepath.Glob(filepath.Join(a.sys, "devices/system/node/node[0-9]*"))
	if err != nil || len(nodes) == 0 {
		return "", fmt.Errorf("no NUMA nodes in %s: %v", a.sys, err)
	}
	var failed []error
	for _, node := range nodes {
		list, err := a.allocateOn(node, pool, cpus, memory)
		if err == nil {
			return list, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", path.Base(node), err))
	}
	return "", errors.Join(failed...)
}

func (a allocator) allocateOn(node, pool string, cpus, memory int) (string, error) {
	chosen, err := a.cores(node, cpus)
	if err != nil {
		return "", err
	}
	if err := reserve(node, memory); err != nil {
		return "", err
	}
	list := format(chosen)
	if err := os.WriteFile(pool, []byte(list), 0o644); err != nil {
		return "", fmt.Errorf("CPUs %s: %w", list, err)
	}
	return list, nil
}

// cores returns whole cores of a node with at least n CPUs, the last ones first. The
// driver does not accept the core of CPU 0, and requires whole cores
// (Linux, Documentation/virt/ne_overview.rst).
func (a allocator) cores(node string, n int) ([]int, error) {
	all, err := readList(filepath.Join(node, "cpulist"))
	if err != nil {
		return nil, err
	}
	var chosen []int
	seen := map[int]bool{}
	for _, cpu := range slices.Backward(all) {
		if seen[cpu] || len(chosen) >= n {
			continue
		}
		siblings, err := readList(filepath.Join(a.sys, fmt.Sprintf("devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu)))
		if err != nil {
			return nil, err
		}
		for _, s := range siblings {
			seen[s] = true
		}
		if !slices.Contains(siblings, 0) {
			chosen = append(chosen, siblings...)
		}
	}
	if len(chosen) < n {
		return nil, fmt.Errorf("%d CPUs are available for enclaves, not %d: the core of CPU 0 is not", len(chosen), n)
	}
	slices.Sort(chosen)
	return chosen, nil
}

// reserve reserves memory in MiB as huge pages of a node: of 1 GiB as far as these
// fit, because an enclave has few regions of memory, and of 2 MiB.
func reserve(node string, memory int) error {
	for _, size := range []int{1024, 2} {
		file := filepath.Join(node, "hugepages", fmt.Sprintf("hugepages-%dkB", size<<10), "nr_hugepages")
		wanted := memory / size
		if size == 2 {
			wanted = (memory + 1) / 2
		}
		if wanted == 0 {
			continue
		}
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(file, []byte(strconv.Itoa(wanted)), 0o644); err != nil {
			return err
		}
		// The kernel reserves as many as it finds.
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		got, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		memory -= got * size
	}
	if memory > 0 {
		return fmt.Errorf("%d MiB of memory are missing for enclaves: reserve them at boot, with hugepagesz= and hugepages= on the kernel command line", memory)
	}
	return nil
}

// readList reads a list of numbers such as 0-3,8 (Linux,
// Documentation/admin-guide/cputopology.rst).
func readList(file string) ([]int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var all []int
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		if part == "" { // a node without CPUs
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: invalid list %q", file, text)
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}

// format returns a comma-separated list.
func format(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ",")
}
