package main

import (
	"fmt"
	"strings"

	"github.com/slipway-build/slipway/internal/contract/policy"
)

// annotationList returns the list of the annotations that the init follows.
func annotationList() string {
	var b strings.Builder
	for _, k := range policy.Keys() {
		b.WriteString(wrap("- ", fmt.Sprintf("**`%s`** (%s; of %s; default: %s): %s", k.Name, k.Values, strings.Join(k.Sections, ", "), k.Default, k.Doc)))
	}
	return b.String()
}
