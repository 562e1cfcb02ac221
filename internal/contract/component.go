package contract

import (
	"fmt"
	"strings"
)

const initComponent = "init["

// InitComponent returns the name of an init image among the components of a
// machine, by its index in the section.
func InitComponent(i int) string { return fmt.Sprint(initComponent, i, "]") }

// IsInitComponent reports whether a component is an init image.
func IsInitComponent(name string) bool { return strings.HasPrefix(name, initComponent) }
