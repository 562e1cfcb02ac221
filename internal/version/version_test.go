package version

import "testing"

func TestRelease(t *testing.T) {
	for module, want := range map[string]string{
		"v1.2.3":                               "1.2.3",
		"v1.2.3-rc.1":                          "1.2.3-rc.1",
		"(devel)":                              Development,
		"v0.0.0-20261128201530-0123456789ab":   Development,
		"v1.2.4-0.20261128201530-0123456789ab": Development,
		"v1.2.3+dirty":                         Development,
		"v0.0.0-20261128201530-0123456789ab+dirty": Development,
	} {
		if got := release(module); got != want {
			t.Errorf("%s: got %q, want %q", module, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	number = "1.2.3"
	defer func() { number = "" }()
	if Release() != "1.2.3" || Detailed() != "1.2.3" {
		t.Errorf("got %q and %q", Release(), Detailed())
	}
}
