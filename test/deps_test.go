package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "github.com/hiatus-project/hiatus/"

// rule says what the packages of a folder may import besides the standard
// library. A pattern is a folder of this module or a path of another one;
// "x/..." is x and all below it, "x/*" what is directly below it.
type rule struct {
	packages string
	may      []string
	tests    []string // what their _test.go files may import as well
}

// The other modules, by short names.
const (
	zerolog  = "github.com/rs/zerolog/..."
	sys      = "golang.org/x/sys/..."
	wazero   = "github.com/tetratelabs/wazero/..."
	compress = "github.com/klauspost/compress/..."
	xxh3     = "github.com/zeebo/xxh3/..."
	lz4      = "github.com/pierrec/lz4/v4/..."
	viper    = "github.com/spf13/viper/..."
	cobra    = "github.com/spf13/cobra/..."
	script   = "github.com/rogpeppe/go-internal/..."
	anything = "..."
)

// importRules is who may import whom. The first rule that matches a package
// is its rule, and a package that matches none is an error.
func importRules() []rule {
	return []rule{
		// The contract: types and interfaces only.
		{"plugin", []string{zerolog}, nil},
		// What plugins' tests need, and nothing of the core.
		{"plugin/plugintest", []string{"plugin", sys, zerolog}, nil},
		// Extensions are plugins whose code is WASM.
		{"plugin/wasm/...", []string{"plugin", "plugin/wasm/...", "sdk/abi", "internal/...", sys, zerolog, wazero}, []string{"plugin/plugintest"}},

		// The image alone compresses and computes checksums.
		{"core/image/...", []string{"core/image/...", "plugin", "internal/...", sys, zerolog, compress, lz4, xxh3}, nil},
		// The runtime knows the contract, and no plugin.
		{"core/...", []string{"core/...", "plugin", "internal/...", sys, zerolog}, []string{"plugin/plugintest"}},

		// The list of the built-in plugins.
		{"plugins", []string{"plugin", "plugins/*"}, []string{"plugin/plugintest"}},
		// A plugin knows neither the core nor another plugin.
		{"plugins/...", []string{"plugin", "internal/...", sys, zerolog}, []string{"plugin/plugintest"}},

		// What authors of extensions import must build for WASM.
		{"sdk/...", []string{"sdk", "sdk/..."}, nil},
		{"internal/...", []string{"internal/...", sys}, nil},

		{"cmd/...", []string{anything}, nil},
		{"test/...", []string{anything}, nil},
		{"bench/...", []string{anything}, nil},
	}
}

// users is who alone may use a module, although "anything" is allowed there.
func users() map[string]string {
	return map[string]string{
		wazero:   "plugin/wasm/...",
		compress: "core/image/...",
		lz4:      "core/image/...",
		xxh3:     "core/image/...",
		viper:    "cmd/hiatus",
		cobra:    "cmd/hiatus",
	}
}

// pluginFiles are the files of each folder of plugins; NAME is its own.
func pluginFiles() []string {
	return []string{"README.md", "doc.go", "NAME.go", "state.go", "*_test.go"}
}

// readmeSections are the headings of the second level in each plugin's
// README.md, below its title, in this order.
func readmeSections() []string {
	return []string{"Name", "Description", "Config", "Events", "State", "Limits", "Examples"}
}

// TestRules holds the whole tree against the rules above.
func TestRules(t *testing.T) {
	for _, complaint := range checkTree(t, os.DirFS("..")) {
		t.Error(complaint)
	}
}

// TestRulesDetect breaks each rule once.
func TestRulesDetect(t *testing.T) {
	file := func(imports ...string) string {
		src := "package p\n"
		for _, i := range imports {
			src += "import _ " + strconv.Quote(i) + "\n"
		}
		return src
	}
	for _, tt := range []struct {
		name, src string
		want      string // part of the complaint, "" for none
	}{
		{"plugin/plugin.go", file("context", "github.com/rs/zerolog"), ""},
		{"plugin/plugin.go", file(module + "internal/linux"), "plugin may not import internal/linux"},
		{"plugin/plugin.go", file("golang.org/x/sys/unix"), "plugin may not import golang.org/x/sys/unix"},
		{"core/agent.go", file(module+"core/proc", module+"plugin", "golang.org/x/sys/unix"), ""},
		{"core/agent.go", file(module + "plugins/file"), "core may not import plugins/file"},
		{"core/agent.go", file(module + "plugin/plugintest"), "core may not import plugin/plugintest"},
		{"core/agent_test.go", file(module + "plugin/plugintest"), ""},
		{"core/proc/proc.go", file("github.com/klauspost/compress/zstd"), "core/proc may not import"},
		{"core/image/image.go", file("github.com/klauspost/compress/zstd", "github.com/zeebo/xxh3"), ""},
		{"core/image/image.go", file(module + "core/proc"), "core/image may not import core/proc"},
		{"plugins/standard.go", file(module+"plugins/file", module+"plugin"), ""},
		{"plugins/standard.go", file(module + "core"), "plugins may not import core"},
		{"plugin/wasm/host.go", file("github.com/tetratelabs/wazero/api", module+"sdk/abi"), ""},
		{"cmd/hiatus/main.go", file("github.com/spf13/cobra", module+"core", "github.com/some/thing"), ""},
		{"cmd/hiatus/main.go", file("github.com/tetratelabs/wazero"), "only plugin/wasm/... may"},
		{"cmd/other/main.go", file("github.com/spf13/viper"), "only cmd/hiatus may"},
		{"sdk/sdk.go", file(module + "sdk/abi"), ""},
		{"sdk/sdk.go", file(module + "plugin"), "sdk may not import plugin"},
		{"internal/linux/linux.go", file(module + "plugin"), "internal/linux may not import plugin"},
		{"core/agent.go", file("C"), "core may not import C"},
		{"elsewhere/x.go", file(), "elsewhere matches no import rule"},
		{"core/agent.go", "package core\nfunc init() {}", "core/agent.go:2: func init"},
		{"core/agent.go", "package core\ntype t int\nfunc (t) init() {}", ""},
		{"cmd/hiatus/main.go", "package main\nfunc init() {}", ""},
		{"core/testdata/x.go", file(module + "plugins/file"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			complaints := checkTree(t, fstest.MapFS{tt.name: {Data: []byte(tt.src)}})
			requireComplaint(t, complaints, tt.want)
		})
	}
}

// TestPluginFolderDetect spoils a good folder of a plugin in several ways.
func TestPluginFolderDetect(t *testing.T) {
	const readme = "# x\n## Name\n## Description\n## Config\n## Events\n## State\n## Limits\n## Examples\n"
	for _, tt := range []struct {
		name  string
		spoil func(fstest.MapFS)
		want  string
	}{
		{"good", func(fstest.MapFS) {}, ""},
		{"no state.go", func(f fstest.MapFS) { delete(f, "plugins/x/state.go") }, "plugins/x: has no state.go"},
		{"no x.go", func(f fstest.MapFS) { delete(f, "plugins/x/x.go") }, "plugins/x: has no x.go"},
		{"no test", func(f fstest.MapFS) { delete(f, "plugins/x/x_test.go") }, "plugins/x: has no *_test.go"},
		{"no README", func(f fstest.MapFS) { delete(f, "plugins/x/README.md") }, "plugins/x: has no README.md"},
		{"no section", func(f fstest.MapFS) {
			f["plugins/x/README.md"].Data = []byte(strings.Replace(readme, "## Limits\n", "", 1))
		}, `README.md: the headings must be`},
		{"not in the list", func(f fstest.MapFS) { f["plugins/standard.go"].Data = []byte("package plugins") }, "plugins/x: plugins/standard.go does not import it"},
		{"another plugin", func(f fstest.MapFS) {
			f["plugins/x/x.go"].Data = []byte("package x\nimport _ \"" + module + "plugins/y\"")
		}, "plugins/x may not import plugins/y"},
		{"the core", func(f fstest.MapFS) {
			f["plugins/x/x_test.go"].Data = []byte("package x\nimport _ \"" + module + "core\"")
		}, "plugins/x may not import core"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tree := fstest.MapFS{
				"plugins/standard.go": {Data: []byte("package plugins\nimport _ \"" + module + "plugins/x\"")},
				"plugins/x/README.md": {Data: []byte(readme)},
				"plugins/x/doc.go":    {Data: []byte("package x")},
				"plugins/x/x.go":      {Data: []byte("package x")},
				"plugins/x/state.go":  {Data: []byte("package x")},
				"plugins/x/x_test.go": {Data: []byte("package x\nimport _ \"" + module + "plugin/plugintest\"")},
			}
			tt.spoil(tree)
			requireComplaint(t, checkTree(t, tree), tt.want)
		})
	}
}

// requireComplaint wants one complaint that has the part want, or none.
func requireComplaint(t *testing.T, complaints []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(complaints) > 0:
		t.Errorf("complaints %q, want none", complaints)
	case want != "" && (len(complaints) != 1 || !strings.Contains(complaints[0], want)):
		t.Errorf("complaints %q, want one with %q", complaints, want)
	}
}

// checkTree returns what is wrong with the tree.
func checkTree(t *testing.T, tree fs.FS) []string {
	t.Helper()
	var complaints []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && ignored(d.Name()):
			return fs.SkipDir
		case d.IsDir() && path.Dir(name) == "plugins":
			complaints = append(complaints, checkPluginFolder(tree, name)...)
		case !d.IsDir() && path.Ext(name) == ".go":
			found, err := checkFile(tree, name)
			complaints = append(complaints, found...)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return complaints
}

// ignored are the folders that the go command passes over.
func ignored(folder string) bool {
	return folder == "testdata" || folder == "vendor" || folder[0] == '.' || folder[0] == '_'
}

// checkFile holds one Go file against the rules.
func checkFile(tree fs.FS, name string) ([]string, error) {
	files := token.NewFileSet()
	file, err := parse(tree, files, name)
	if err != nil {
		return nil, err
	}
	pkg := path.Dir(name)
	i := slices.IndexFunc(importRules(), func(r rule) bool { return matches(r.packages, pkg) })
	if i < 0 {
		return []string{fmt.Sprintf("%s: %s matches no import rule", name, pkg)}, nil
	}
	r := importRules()[i]
	may := r.may
	if strings.HasSuffix(name, "_test.go") {
		may = slices.Concat(may, r.tests, []string{pkg, script})
	}
	var complaints []string
	for _, imported := range imports(file) {
		if why := forbidden(pkg, imported, may); why != "" {
			complaints = append(complaints, fmt.Sprintf("%s: %s", name, why))
		}
	}
	// An extension has no other place to register itself.
	if !matches("cmd/...", pkg) && !matches("sdk/examples/...", pkg) {
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				complaints = append(complaints, fmt.Sprintf("%s:%d: func init: only cmd may have one", name, files.Position(f.Pos()).Line))
			}
		}
	}
	return complaints, nil
}

// forbidden says why pkg, which may import may, may not import what, or "".
func forbidden(pkg, what string, may []string) string {
	local, own := strings.CutPrefix(what, module)
	allowed := func(pattern string) bool { return matches(pattern, local) }
	for other, only := range users() {
		if allowed(other) && !matches(only, pkg) {
			return fmt.Sprintf("%s may not import %s: only %s may", pkg, local, only)
		}
	}
	first, _, _ := strings.Cut(what, "/")
	standard := !own && what != "C" && !strings.Contains(first, ".")
	if standard || slices.ContainsFunc(may, allowed) {
		return ""
	}
	return fmt.Sprintf("%s may not import %s", pkg, local)
}

// matches says whether pattern (see rule) covers the path name.
func matches(pattern, name string) bool {
	if pattern == anything {
		return name != "C"
	}
	if folder, ok := strings.CutSuffix(pattern, "/..."); ok {
		return name == folder || strings.HasPrefix(name, folder+"/")
	}
	if folder, ok := strings.CutSuffix(pattern, "/*"); ok {
		return path.Dir(name) == folder
	}
	return name == pattern
}

// checkPluginFolder holds the folder of one plugin against the shape that all
// have.
func checkPluginFolder(tree fs.FS, folder string) []string {
	var complaints []string
	name := path.Base(folder)
	for _, file := range pluginFiles() {
		file = strings.Replace(file, "NAME", name, 1)
		if found, err := fs.Glob(tree, path.Join(folder, file)); err != nil || len(found) == 0 {
			complaints = append(complaints, fmt.Sprintf("%s: has no %s", folder, file))
		}
	}
	readme, err := fs.ReadFile(tree, path.Join(folder, "README.md"))
	if err == nil {
		if got := headings(readme); !slices.Equal(got, readmeSections()) {
			complaints = append(complaints, fmt.Sprintf("%s/README.md: the headings must be %q, are %q", folder, readmeSections(), got))
		}
	}
	list, err := parse(tree, token.NewFileSet(), "plugins/standard.go")
	if err != nil || !slices.Contains(imports(list), module+folder) {
		complaints = append(complaints, fmt.Sprintf("%s: plugins/standard.go does not import it", folder))
	}
	return complaints
}

// headings returns the headings of the second level, outside code.
func headings(markdown []byte) []string {
	heading := regexp.MustCompile(`^## +(.*?) *$`)
	var found []string
	code := false
	for line := range strings.Lines(string(markdown)) {
		if strings.HasPrefix(line, "```") {
			code = !code
		}
		if m := heading.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil && !code {
			found = append(found, m[1])
		}
	}
	return found
}

func parse(tree fs.FS, files *token.FileSet, name string) (*ast.File, error) {
	src, err := fs.ReadFile(tree, name)
	if err != nil {
		return nil, err
	}
	return parser.ParseFile(files, name, src, parser.SkipObjectResolution)
}

// imports returns the import paths of a file.
func imports(file *ast.File) []string {
	var paths []string
	for _, spec := range file.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}
