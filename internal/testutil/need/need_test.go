package need

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// recorder records how a test ends. Its other methods are nil.
type recorder struct {
	testing.TB
	end string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.end = "fails: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skipf(format string, args ...any) {
	r.end = "skips: " + fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// end returns how a test with a requirement ends, "" if it continues.
func end(require func(t testing.TB)) string {
	r, done := new(recorder), make(chan struct{})
	go func() {
		defer close(done)
		require(r)
	}()
	<-done
	return r.end
}

func TestMissing(t *testing.T) {
	program := func(t testing.TB) { Program(t, "slipway-no-such-program", "coreutils") }
	file := func(t testing.TB) { File(t, "/no/such/file", "coreutils") }
	for variable, verb := range map[string]string{"": "skips", "SLIPWAY_TEST_ALL": "fails", "CI": "fails"} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv("SLIPWAY_TEST_ALL", "")
			t.Setenv("CI", "")
			if variable != "" {
				t.Setenv(variable, "1")
			}
			if got, want := end(program), verb+": slipway-no-such-program is not installed (Debian package coreutils)"; got != want {
				t.Errorf("program: %q, want %q", got, want)
			}
			if got, want := end(file), verb+": stat /no/such/file: no such file or directory (Debian package coreutils)"; got != want {
				t.Errorf("file: %q, want %q", got, want)
			}
			if got := end(func(t testing.TB) { Program(t, "go", "golang-go"); File(t, ".", "coreutils") }); got != "" {
				t.Errorf("nothing is missing, but the test %s", got)
			}
		})
	}
}

// essential are packages that every Debian has.
var essential = []string{"coreutils", "gzip", "tar", "util-linux"}

// TestPackages checks that make test installs each Debian package that a test
// requires. Tests therefore name packages in constants.
func TestPackages(t *testing.T) {
	const root = "../../.."
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile(`(?m)^test:.*\n\thack/debian-packages ((?:.*\\\n)*.*)`).FindSubmatch(makefile)
	if recipe == nil {
		t.Fatal("the Makefile's target test installs no packages")
	}
	installed := append(strings.Fields(strings.ReplaceAll(string(recipe[1]), "\\\n", " ")), essential...)

	calls := 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "out" || d.Name() == "testdata" {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			function, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || function.Sel.Name != "Program" && function.Sel.Name != "File" {
				return true
			}
			if pkg, ok := function.X.(*ast.Ident); !ok || pkg.Name != "need" {
				return true
			}
			calls++
			literal, ok := call.Args[2].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the Debian package is not a string literal", set.Position(call.Pos()))
				return true
			}
			name, err := strconv.Unquote(literal.Value)
			if err != nil || !slices.Contains(installed, name) {
				t.Errorf("%s: make test does not install %s", set.Position(call.Pos()), literal.Value)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls < 20 {
		t.Errorf("found only %d calls", calls)
	}
}
