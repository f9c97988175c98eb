package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tocsin-fed/tocsin"

// mayImport is the table of who imports whom: each package of the module, named
// by its folder, with the packages of the module that it may import. The walls
// stand where trust changes, so a new edge is a decision, to be made here. The
// programs under cmd are not in it: they wire the rest together.
var mayImport = map[string][]string{
	"bktree":             {},
	"hashlist":           {"bktree"}, // alone, so that the index can change its inside unnoticed
	"hashlist/imagehash": {"hashlist", "hashlist/luma"},
	"hashlist/luma":      {},
	"hashlist/rules":     {"hashlist"}, // so that the heart does not link a compiler
	"exchange":           {"hashlist"},
	"exchange/source":    {"exchange", "hashlist"}, // is handed the guarded client
	"guarded":            {},                       // the one dialer for the outside world, for whoever reaches out
	"federation":         {"guarded", "hashlist"},
	"platform":           {"hashlist"}, // reaches the operator's own servers; what it does there is its alone to do
	"digest":             {},           // of nothing but counts that it is given
	"report":             {},           // of nothing but facts that it is given
	"revisit":            {"hashlist"},
	"store":              {"exchange/source", "federation", "hashlist", "platform", "report", "revisit"}, // keeps what they remember, as they define it
	"proto/tocsin/v1":    {},
	"server": {"digest", "exchange", "exchange/source", "federation", "guarded", "hashlist", "hashlist/imagehash", "hashlist/rules", "platform",
		"proto/tocsin/v1", "report", "revisit"},
}

// testsMayImport is what the test files of a package may import beyond
// mayImport. What rests on a database is tested on a real one, not on a stand-in for it.
var testsMayImport = map[string][]string{
	"exchange/source": {"federation", "guarded", "store"}, // over its real client, and signed by a real issuer
	"federation":      {"store"},
	"server":          {"store"},
	"revisit":         {"guarded", "store"},
	"platform":        {"store"},
	"hashlist":        {"store"},
}

// onlyIn keeps what is heavy or dangerous to link in the one package that is its
// home ("cmd" stands for every program). A name stands for the package and all
// below it. Test files are held to it too.
var onlyIn = []struct {
	dependency string
	homes      []string
}{
	{"github.com/mattn/go-sqlite3", []string{"store"}},
	{"github.com/pressly/goose", []string{"store"}},
	{"github.com/gen2brain", []string{"hashlist/imagehash"}},   // decoders of strangers' files
	{"github.com/tetratelabs", []string{"hashlist/imagehash"}}, // the machine they run on
	{"github.com/google/cel-go", []string{"hashlist/rules"}},
	{"google.golang.org/grpc", []string{"server", "cmd", "proto/tocsin/v1"}},
	{"github.com/go-fed/activity", []string{"federation"}}, // takes minutes to build, and half of the binary
}

// neverReaches is what a package must not depend on even through others. (Every
// package reaches os, by way of fmt, so of os only the import itself is checked.)
var neverReaches = map[string][]string{
	"bktree":   {"net", "os/exec", "database/sql"},
	"hashlist": {"net", "os/exec", "database/sql"},
}

// neverImports is what the files of a package must not import themselves; its
// test files may, say for a temporary directory.
var neverImports = map[string][]string{
	"bktree":     {"os", "path/filepath"}, // syscall is for huge pages
	"hashlist":   {"os", "syscall", "path/filepath", "io/ioutil"},
	"federation": {"database/sql"},
	"server":     {"database/sql"},
	"cmd":        {"database/sql"},
}

// listedPackage is the part of `go list -json` that the checks need.
type listedPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

func TestImportsFollowTheTable(t *testing.T) {
	// This test's own result must not come from go's test cache, which does not
	// see what go list reads: run it with -count=1.
	packages := goList(t, "./...")
	for _, violation := range checkImports(packages) {
		t.Error(violation)
	}
	for folder := range mayImport {
		if !slices.ContainsFunc(packages, func(p listedPackage) bool { return p.ImportPath == module+"/"+folder }) {
			t.Errorf("the table names %s, but there is no such package", folder)
		}
	}
}

// goList runs go list in the root of the module, where the test's own folder is
// two below.
func goList(t *testing.T, pattern string) []listedPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,Deps", pattern)
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", pattern, err, stderr.Bytes())
	}
	var packages []listedPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("couldn't read what go list printed: %v", err)
		}
		packages = append(packages, p)
	}
}

// checkImports returns one line for each edge that the table forbids, sorted.
func checkImports(packages []listedPackage) []string {
	var found []string
	for _, p := range packages {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		add := func(format string, args ...any) { found = append(found, from+" "+fmt.Sprintf(format, args...)) }
		if _, ok := mayImport[from]; !ok && !isProgram(from) {
			add("is not in the table: decide who it may import and who may import it")
			continue
		}
		tests := slices.Concat(p.TestImports, p.XTestImports)
		for _, to := range p.Imports {
			if why := forbidden(from, to); why != "" {
				add("imports %s: %s", short(to), why)
			}
			for _, banned := range neverImports[tableKey(from)] {
				if to == banned {
					add("imports %s, which is not for this package", to)
				}
			}
		}
		for _, to := range tests {
			if short(to) == from || slices.Contains(testsMayImport[from], short(to)) {
				continue
			}
			// bktree's files need the standard library alone; its tests may use testing libraries.
			if why := forbidden(from, to); why != "" && (from != "bktree" || isOurs(to)) {
				add("imports %s in a test: %s", short(to), why)
			}
		}
		for _, banned := range neverReaches[from] {
			for _, dep := range p.Deps {
				if within(dep, banned) && !harmless[dep] {
					add("depends on %s, directly or through another package", dep)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// harmless are packages below a name of neverReaches that only compute.
var harmless = map[string]bool{"net/netip": true, "net/url": true, "database/sql/driver": true}

// forbidden says why the package in folder from may not import to, or "".
func forbidden(from, to string) string {
	for _, rule := range onlyIn {
		if within(to, rule.dependency) && !slices.Contains(rule.homes, tableKey(from)) {
			return "only " + strings.Join(rule.homes, ", ") + " may"
		}
	}
	if from == "bktree" && !isOurs(to) && to != "golang.org/x/sys/cpu" && strings.Contains(strings.SplitN(to, "/", 2)[0], ".") {
		// x/sys/cpu is what internal/cpu shows of itself: which instructions there are.
		return "it stands on the standard library only"
	}
	if !isOurs(to) {
		return ""
	}
	to = short(to)
	switch {
	case within(to, from) && to != from:
		return "a folder's own package never imports its subfolders"
	case to == "bktree" && from != "hashlist":
		return "only hashlist may"
	case isProgram(to):
		return "nothing imports a program"
	case !isProgram(from) && !slices.Contains(mayImport[from], to):
		if len(mayImport[from]) == 0 {
			return "it may import no package of this module"
		}
		return "of this module it may import only " + strings.Join(mayImport[from], ", ")
	}
	return ""
}

func isOurs(path string) bool       { return within(path, module) }
func isProgram(folder string) bool  { return within(folder, "cmd") }
func short(path string) string      { return strings.TrimPrefix(path, module+"/") }
func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }

// tableKey is the name of a folder in the tables: all programs are "cmd".
func tableKey(folder string) string {
	if isProgram(folder) {
		return "cmd"
	}
	return folder
}

// TestImportCheckFinds shows that the check finds each kind of forbidden edge,
// and that it names both ends of it.
func TestImportCheckFinds(t *testing.T) {
	our := func(folders ...string) []string {
		for i, f := range folders {
			folders[i] = module + "/" + f
		}
		return folders
	}
	for _, c := range []struct {
		pkg  listedPackage
		want string // the start of the only line, or "" if the edge is allowed
	}{
		{listedPackage{ImportPath: "server", Imports: our("store")}, "server imports store: "},
		{listedPackage{ImportPath: "server", XTestImports: our("store", "server")}, ""},
		{listedPackage{ImportPath: "store", TestImports: our("server")}, "store imports server in a test: "},
		{listedPackage{ImportPath: "server", Imports: our("bktree")}, "server imports bktree: only hashlist may"},
		{listedPackage{ImportPath: "cmd/tocsin", Imports: our("bktree")}, "cmd/tocsin imports bktree: only hashlist may"},
		{listedPackage{ImportPath: "cmd/tocsin", TestImports: our("bktree")}, "cmd/tocsin imports bktree in a test: "},
		{listedPackage{ImportPath: "cmd/tocsin", Imports: our("server", "store", "hashlist/imagehash")}, ""},
		{listedPackage{ImportPath: "cmd/demo", Imports: our("cmd/tocsin")}, "cmd/demo imports cmd/tocsin: nothing imports a program"},
		{listedPackage{ImportPath: "hashlist", Imports: our("hashlist/imagehash")}, "hashlist imports hashlist/imagehash: a folder's own"},
		{listedPackage{ImportPath: "hashlist", Imports: our("bktree")}, ""},
		{listedPackage{ImportPath: "hashlist", Deps: []string{"fmt", "os", "net/http"}}, "hashlist depends on net/http"},
		{listedPackage{ImportPath: "hashlist", Deps: []string{"database/sql"}}, "hashlist depends on database/sql"},
		{listedPackage{ImportPath: "hashlist", Deps: []string{"net/netip", "net/url"}}, ""},
		{listedPackage{ImportPath: "hashlist", Imports: []string{"os"}}, "hashlist imports os, "},
		{listedPackage{ImportPath: "hashlist", TestImports: []string{"os"}}, ""},
		{listedPackage{ImportPath: "proto/tocsin/v1", Imports: our("hashlist")}, "proto/tocsin/v1 imports hashlist: it may import no"},
		{listedPackage{ImportPath: "bktree", Imports: []string{"math/bits", "golang.org/x/sys/unix"}}, "bktree imports golang.org/x/sys/unix: it stands"},
		{listedPackage{ImportPath: "bktree", Imports: []string{"math/bits", "golang.org/x/sys/cpu"}}, ""},
		{listedPackage{ImportPath: "bktree", TestImports: []string{"pgregory.net/rapid"}}, ""},
		{listedPackage{ImportPath: "bktree", TestImports: our("hashlist")}, "bktree imports hashlist in a test: "},
		{listedPackage{ImportPath: "server", Imports: []string{"github.com/mattn/go-sqlite3"}}, "server imports github.com/mattn/go-sqlite3: only store may"},
		{listedPackage{ImportPath: "cmd/tocsin", Imports: []string{"database/sql"}}, "cmd/tocsin imports database/sql, "},
		{listedPackage{ImportPath: "federation", Imports: []string{"google.golang.org/grpc/codes"}}, "federation imports google.golang.org/grpc/codes: only server, cmd, "},
		{listedPackage{ImportPath: "cmd/tocsin", Imports: []string{"google.golang.org/grpc"}}, ""},
		{listedPackage{ImportPath: "server", TestImports: []string{"github.com/gen2brain/webp"}}, "server imports github.com/gen2brain/webp in a test: only hashlist/imagehash may"},
		{listedPackage{ImportPath: "hashlist/imagehash", Imports: []string{"github.com/gen2brain/webp"}}, ""},
		{listedPackage{ImportPath: "console"}, "console is not in the table"},
	} {
		c.pkg.ImportPath = module + "/" + c.pkg.ImportPath
		got := checkImports([]listedPackage{c.pkg})
		switch {
		case c.want == "" && len(got) != 0:
			t.Errorf("%+v: found %q, want nothing", c.pkg, got)
		case c.want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], c.want)):
			t.Errorf("%+v: found %q, want one line that starts with %q", c.pkg, got, c.want)
		}
	}
}
