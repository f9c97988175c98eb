// Command demo shows the main job of tocsin on real photographs: a node bans
// one, and refuses its copies, however they were changed, but no other.
//
//	go run ./cmd/demo -tocsin bin/tocsin
//
// It works in a directory of its own, on loopback, and cleans up behind itself.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

//go:embed photos/*.jpg
var photos embed.FS

// wholeTime bounds the demo.
const wholeTime = 3 * time.Minute

func main() {
	binary := flag.String("tocsin", "bin/tocsin", "the program to show")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	err := run(ctx, *binary, os.Stdout)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run is the demo. It returns an error if any step is not as it should be.
func run(ctx context.Context, binary string, out io.Writer) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tocsin-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	fmt.Fprintf(out, "One node on SQLite, in %s.\n\n", dir)
	banned := filepath.Join(dir, "cat.jpg")
	cat, err := photos.ReadFile("photos/cat.jpg")
	if err != nil {
		return err
	}
	if err := os.WriteFile(banned, cat, 0o600); err != nil {
		return err
	}
	n, err := start(ctx, binary, filepath.Join(dir, "node"), out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	if err := n.run(ctx, "list", "create", "refused", "--summary", "pictures we do not want", "--label", "demo"); err != nil {
		return err
	}
	if err := n.run(ctx, "ban", "--list", "refused", "--reason", "shown in the demo", banned); err != nil {
		return err
	}
	if err := n.connect(ctx); err != nil {
		return err
	}
	defer n.conn.Close()

	pictures, err := copies(cat)
	if err != nil {
		return err
	}
	for _, name := range []string{"coffee.jpg", "dogs.jpg", "brook.jpg", "mountains.jpg"} {
		b, err := photos.ReadFile("photos/" + name)
		if err != nil {
			return err
		}
		pictures = append(pictures, picture{"another photograph, " + name, b, false})
	}
	fmt.Fprintf(out, "\nWhat is uploaded:\n\n%-34s %9s   %-18s %s\n", "", "bytes", "hook of pict-rs", "gRPC LookupMedia")
	var wrong []error
	for _, p := range pictures {
		if err := n.show(ctx, p, out); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Fprintf(out, "\nEach copy was refused and each other photograph accepted, by both doors.\n")
	return nil
}
