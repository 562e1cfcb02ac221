package machine

import (
	"fmt"
	"testing"
)

func TestX(t *testing.T) {
	for _, s := range []string{
		"kernel:\n  image: a\n cmdline: b\n",
		"kernel:\n\timage: a\n",
		"services:\n  - name: a\n    image: b\n   command: [x]\n",
		"services:\n  - name: a\n    command: [x\n    env: [y]\nfiles: []\n",
		"a: \"unterminated\nfoo\n",
		"a: b: c\n",
		"x: 1\ny: 2\nfiles:\n  - path: a\n    contents: @x\n",
		"x: 1\ny: 2\nfiles:\n  - path: a\n    contents: %x\n",
		"kernel:\n  image: *foo\n",
		"- a\nb: c\n",
		"a: 1\nb\nc: 3\n",
		"a: |\n  x\n y\n",
		"a: 'x\n\n\n",
		"\xff\xfe",
		"a: \x01\n",
		"a: \xc3\x28\n",
		"kernel:\n  cmdline: a\n  image: b: c\ninit: []\n",
		"files:\n  - path: x\n    contents: |\n      foo\n# comment\n      bar\n",
		"{a: 1, b: [2}\n",
		"a: &x\n  b: 1\n<<: *y\n",
		"? a\n: b\n",
		"--- a\n--- b: [\n",
		"%YAML 3.0\n---\na: b\n",
		"a: !foo b\n", "a: !!int x\n", "key: [a, b]]\n", "\"a\\qb\": 1\n",
	} {
		_, err := Parse(Source{"f", []byte(s)})
		fmt.Printf("%q\n   %v\n", s, err)
	}
}
