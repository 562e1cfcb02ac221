// Command list prints the table of formats and writes none of them.
package main

import (
	"fmt"

	"github.com/slipway-build/slipway/exporter/format"
)

func main() {
	for _, f := range format.All() {
		fmt.Println(f.Name, f.Files("NAME"), f.Check("amd64"))
	}
}
