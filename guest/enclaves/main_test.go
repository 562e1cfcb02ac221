package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// instance writes the sysfs of an instance with 8 CPUs on 4 cores, in 2 NUMA nodes.
func instance(t *testing.T) allocator {
	t.Helper()
	a := allocator{t.TempDir()}
	files := map[string]string{
		"module/nitro_enclaves/parameters/ne_cpus":                               "",
		"class/misc/nitro_enclaves/dev":                                          "10:123\n",
		"devices/system/node/node0/cpulist":                                      "0-1,4-5\n",
		"devices/system/node/node1/cpulist":                                      "2-3,6-7\n",
		"devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages":      "0\n",
		"devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages":      "0\n",
		"devices/system/node/node1/hugepages/hugepages-1048576kB/nr_hugepages":   "0\n",
		"devices/system/node/node1/hugepages/hugepages-1048576kB/free_hugepages": "0\n",
		"devices/system/node/node0/hugepages/hugepages-2048kB/surplus_hugepages": "0\n",
		"devices/system/cpu/cpu0/topology/thread_siblings_list":                  "0,4\n",
		"devices/system/cpu/cpu4/topology/thread_siblings_list":                  "0,4\n",
		"devices/system/cpu/cpu1/topology/thread_siblings_list":                  "1,5\n",
		"devices/system/cpu/cpu5/topology/thread_siblings_list":                  "1,5\n",
		"devices/system/cpu/cpu2/topology/thread_siblings_list":                  "2,6\n",
		"devices/system/cpu/cpu6/topology/thread_siblings_list":                  "2,6\n",
		"devices/system/cpu/cpu3/topology/thread_siblings_list":                  "3,7\n",
		"devices/system/cpu/cpu7/topology/thread_siblings_list":                  "3,7\n",
	}
	for name, text := range files {
		name = filepath.Join(a.sys, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

func TestAllocate(t *testing.T) {
	for _, test := range []struct {
		cpus, memory int
		want         string            // the CPUs, or the error
		files        map[string]string // below devices/system/node
	}{
		{2, 512, "1,5", map[string]string{"node0/hugepages/hugepages-2048kB": "256"}},
		{1, 513, "1,5", map[string]string{"node0/hugepages/hugepages-2048kB": "257"}},
		{4, 3000, "2,3,6,7", map[string]string{"node1/hugepages/hugepages-1048576kB": "2", "node1/hugepages/hugepages-2048kB": "476"}},
		{5, 512, "2 CPUs are available for enclaves, not 5", nil},
	} {
		a := instance(t)
		got, err := a.allocate(test.cpus, test.memory)
		if err != nil {
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("%d CPUs: error %v, want %q", test.cpus, err, test.want)
			}
			continue
		}
		written, err := os.ReadFile(filepath.Join(a.sys, "module/nitro_enclaves/parameters/ne_cpus"))
		if err != nil || got != test.want || string(written) != test.want {
			t.Errorf("%d CPUs: %s, the driver has %q, %v; want %s", test.cpus, got, written, err, test.want)
		}
		for name, want := range test.files {
			pages, err := os.ReadFile(filepath.Join(a.sys, "devices/system/node", name, "nr_hugepages"))
			if err != nil || string(pages) != want {
				t.Errorf("%d MiB: %s has %q, %v; want %s", test.memory, name, pages, err, want)
			}
		}
	}
}

// TestWithoutDriver checks what the program says without the driver, and without
// the device of the hypervisor.
func TestWithoutDriver(t *testing.T) {
	for folder, want := range map[string]string{
		"module": "the driver nitro_enclaves is not loaded",
		"class":  "this machine cannot run enclaves",
	} {
		a := instance(t)
		if err := os.RemoveAll(filepath.Join(a.sys, folder)); err != nil {
			t.Fatal(err)
		}
		if _, err := a.allocate(2, 512); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: error %v, want %q", folder, err, want)
		}
	}
}

// TestTooLittleMemory checks that the program fails if the kernel reserves less.
func TestTooLittleMemory(t *testing.T) {
	node := t.TempDir() // without huge pages
	if err := reserve(node, 512); err == nil || !strings.Contains(err.Error(), "512 MiB of memory are missing") {
		t.Errorf("error %v", err)
	}
}
