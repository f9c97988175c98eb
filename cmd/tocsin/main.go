// Command tocsin is a node that says whether an uploaded picture is known, and
// the tool that its operator keeps it with.
package main

import (
	"os"

	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// version is set when the program is linked.
var version = "devel"

func main() {
	imagehash.WorkerMain() // does not return in a decoder's child process
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
