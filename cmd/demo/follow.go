package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"
)

// follow is the second half of the demo: another node, B, follows the list of A.
func follow(ctx context.Context, a *node, pictures []picture, listed []string) (err error) {
	out, dir := a.out, filepath.Dir(a.dir)
	fmt.Fprintf(out, "\nAnother node, B, whose admin has never met A's.\n\n")
	b, err := newNode(ctx, a.binary, dir, "b", out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()
	if err := b.serve(ctx); err != nil {
		return err
	}
	defer func() { b.conn.Close() }()
	if err := b.makeToken(ctx); err != nil {
		return err
	}
	if err := b.say(ctx, "follow", "@refused@"+a.host); err != nil {
		return err
	}
	if err := a.asked(ctx); err != nil {
		return err
	}
	if err := a.say(ctx, "followers"); err != nil {
		return err
	}
	if err := a.say(ctx, "followers", "approve", b.host); err != nil {
		return err
	}
	took, err := b.await(ctx, pictures[0].bytes, http.StatusForbidden)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nB has A's list %s after the approval.\n", seconds(took))
	if err := b.showAll(ctx, pictures, listed); err != nil {
		return err
	}

	// What follows is shown on photographs that neither has banned yet.
	coffee, dogs, err := twoOthers(dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\nFrom now on what A bans is refused at B:\n\n")
	statement, err := a.ban(ctx, "coffee.jpg")
	if err != nil {
		return err
	}
	if took, err = b.await(ctx, coffee, http.StatusForbidden); err != nil {
		return err
	}
	fmt.Fprintf(out, "   refused at B %s after that command had ended\n", seconds(took))

	fmt.Fprintf(out, "\nAlso what is banned while B is away:\n\n")
	fmt.Fprintf(out, "b$ kill -TERM %d\n", b.process.Process.Pid)
	if err := b.stop(); err != nil {
		return err
	}
	if _, err := a.ban(ctx, "dogs.jpg"); err != nil {
		return err
	}
	if err := b.serve(ctx); err != nil {
		return err
	}
	if took, err = b.await(ctx, dogs, http.StatusForbidden); err != nil {
		return err
	}
	fmt.Fprintf(out, "   refused at B %s after it was back\n", seconds(took))
	if err := b.say(ctx, "verify", "refused@"+a.host); err != nil {
		return err
	}

	fmt.Fprintf(out, "\nAnd what A takes back is accepted at B again:\n\n")
	if err := a.run(ctx, "retract", statement, "--reason", "a mistake"); err != nil {
		return err
	}
	if took, err = b.await(ctx, coffee, http.StatusOK); err != nil {
		return err
	}
	fmt.Fprintf(out, "   accepted at B %s after that command had ended\n", seconds(took))
	return nil
}

// ban bans a photograph and returns the id of the statement.
func (n *node) ban(ctx context.Context, photo string) (statement string, err error) {
	args := []string{"ban", "--list", "refused", filepath.Join(filepath.Dir(n.dir), photo)}
	n.prompt(args...)
	said, err := n.output(ctx, append(args, "--json")...)
	if err != nil {
		return "", err
	}
	var line struct {
		Statement string `json:"statement_id"`
	}
	err = json.Unmarshal(said, &line)
	return line.Statement, err
}

// asked waits until somebody has asked to follow a list of the node.
func (n *node) asked(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, awaitTime)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		said, err := n.output(ctx, "followers", "--json")
		if err != nil {
			return err
		}
		if len(said) > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("nobody asked to follow the list in %v", awaitTime)
		}
	}
}

func twoOthers(dir string) (coffee, dogs []byte, err error) {
	if coffee, err = unpack(dir, "coffee.jpg"); err != nil {
		return nil, nil, err
	}
	dogs, err = unpack(dir, "dogs.jpg")
	return coffee, dogs, err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
