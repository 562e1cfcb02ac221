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
var essential = []string{"bsdutils", "coreutils", "gzip", "tar", "util-linux"}

// TestPackages checks that the Makefile installs each Debian package that a test
// requires: make test, or the target that sets the flag of the test. Tests
// therefore name packages in constants.
func TestPackages(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	installed := slices.Clone(essential)
	for _, line := range regexp.MustCompile(`(?m)^\thack/debian-packages ((?:.*\\\n)*.*)`).FindAllSubmatch(makefile, -1) {
		installed = append(installed, strings.Fields(strings.ReplaceAll(string(line[1]), "\\\n", " "))...)
	}

	calls := 0
	inspectTests(t, func(n ast.Node, position func(ast.Node) token.Position) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		if name := callee(call); name != "need.Program" && name != "need.File" {
			return
		}
		calls++
		literal, ok := call.Args[2].(*ast.BasicLit)
		if !ok {
			t.Errorf("%s: the Debian package is not a string literal", position(call))
			return
		}
		name, err := strconv.Unquote(literal.Value)
		if err != nil || !slices.Contains(installed, name) {
			t.Errorf("%s: the Makefile does not install %s", position(call), literal.Value)
		}
	})
	if calls < 20 {
		t.Errorf("found only %d calls", calls)
	}
}

// TestSkips checks that tests skip themselves only with -short, without a flag
// that enables them, or through this package.
func TestSkips(t *testing.T) {
	allowed := map[ast.Node]bool{}
	calls := 0
	inspectTests(t, func(n ast.Node, position func(ast.Node) token.Position) {
		switch n := n.(type) {
		case *ast.IfStmt:
			call, ok := n.Cond.(*ast.CallExpr)
			allow := ok && callee(call) == "testing.Short"
			if not, ok := n.Cond.(*ast.UnaryExpr); ok && not.Op == token.NOT {
				_, flag := not.X.(*ast.StarExpr)
				allow = allow || flag
			}
			if empty, ok := n.Cond.(*ast.BinaryExpr); ok && empty.Op == token.EQL {
				_, flag := empty.X.(*ast.StarExpr)
				allow = allow || flag
			}
			for _, statement := range n.Body.List {
				if statement, ok := statement.(*ast.ExprStmt); ok && allow {
					allowed[statement.X] = true
				}
			}
		case *ast.CallExpr:
			function, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, function.Sel.Name) {
				return
			}
			calls++
			// make test does not install Terraform, which is not in Debian.
			if !allowed[n] && filepath.Base(position(n).Filename) != "terraform_test.go" {
				t.Errorf("%s: skips the test: use a function of internal/testutil/need", position(n))
			}
		}
	})
	if calls < 3 {
		t.Errorf("found only %d calls", calls)
	}
}

// root is the root of the checkout.
const root = "../../.."

// inspectTests calls f for each node of all test files of the checkout, parents
// before their children.
func inspectTests(t *testing.T, f func(n ast.Node, position func(ast.Node) token.Position)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "out" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if n != nil {
				f(n, func(n ast.Node) token.Position { return set.Position(n.Pos()) })
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// callee returns the function of a call as package.Name, or "".
func callee(call *ast.CallExpr) string {
	function, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := function.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return pkg.Name + "." + function.Sel.Name
}
