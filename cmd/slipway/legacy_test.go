package main

import (
	"slices"
	"strings"
	"testing"
)

// The commands of 2017, and those of LinuxKit, mean the same here.
func TestTranslateLegacy(t *testing.T) {
	for typed, want := range map[string]string{
		"build -name aws -output raw -size 100M aws.yml":         "build --name=aws --format=raw --size=100M aws.yml",
		"build -format=raw,qcow2 -dir out -arch arm64 a.yml":     "build --format=raw,qcow2 --output=out --platform=linux/arm64 a.yml",
		"build -output type=oci,dest=a.tar a.yml":                "build --output=type=oci,dest=a.tar a.yml",
		"build -disable-content-trust -pull -docker a.yml b.yml": "build --pull a.yml b.yml",
		"build -o out -f a.yml --name x -":                       "build -o out -f a.yml --name x -",
		"build -- -name":                                         "build -- -name",
		"lock -name x":                                           "lock -name x",
		"":                                                       "",
	} {
		if got := translateLegacy(strings.Fields(typed)); !slices.Equal(got, strings.Fields(want)) {
			t.Errorf("%s: got %q, want %q", typed, got, want)
		}
	}
}
