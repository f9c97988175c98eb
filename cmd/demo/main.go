// Command demo shows the main job of tocsin on real photographs: a node bans
// one, and refuses its copies, however they were changed, but no other. So does another
// node that follows its list, also for what was banned while it was away.
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
	"strings"
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

	fmt.Fprintf(out, "One node, A, in %s.\n\n", dir)
	cat, err := unpack(dir, "cat.jpg")
	if err != nil {
		return err
	}
	a, err := newNode(ctx, binary, dir, "a", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	if err := a.serve(ctx); err != nil {
		return err
	}
	defer a.conn.Close()
	if err := a.run(ctx, "list", "create", "refused", "--summary", "pictures we do not want", "--label", "demo"); err != nil {
		return err
	}
	if err := a.run(ctx, "ban", "--list", "refused", "--reason", "shown in the demo", filepath.Join(dir, "cat.jpg")); err != nil {
		return err
	}
	if err := a.makeToken(ctx); err != nil {
		return err
	}
	listed, err := a.listed(ctx)
	if err != nil {
		return err
	}

	pictures, err := copies(cat)
	if err != nil {
		return err
	}
	for _, name := range []string{"coffee.jpg", "dogs.jpg", "brook.jpg", "mountains.jpg"} {
		b, err := unpack(dir, name)
		if err != nil {
			return err
		}
		pictures = append(pictures, picture{"another photograph, " + name, b, false})
	}
	if err := a.showAll(ctx, pictures, listed); err != nil {
		return err
	}
	return follow(ctx, a, pictures, listed)
}

// unpack returns a photograph and puts it into dir.
func unpack(dir, name string) ([]byte, error) {
	b, err := photos.ReadFile("photos/" + name)
	if err != nil {
		return nil, err
	}
	return b, os.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// showAll shows what becomes of pictures at a node.
func (n *node) showAll(ctx context.Context, pictures []picture, listed []string) error {
	fmt.Fprintf(n.out, "\nWhat is uploaded at %s:\n\n%-34s %9s   %-18s %s\n", strings.ToUpper(n.name), "", "bytes", "hook of pict-rs", "gRPC LookupMedia")
	var wrong []error
	for _, p := range pictures {
		if err := n.show(ctx, p, listed); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", p.name, err))
		}
	}
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Fprintf(n.out, "\nEach copy was refused and each other photograph accepted, by both doors.\n")
	return nil
}
