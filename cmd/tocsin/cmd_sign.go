package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

const (
	publishBatch = 500     // statements in one call
	publishBytes = 1 << 20 // that they may have together, but for the first
)

// statementLines calls visit with each line of a file that is not blank.
func (a *app) statementLines(path string, visit func(number int, line []byte) error) error {
	f, err := a.open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 64<<10), federation.MaxSigned+2) // with the end of its line
	number := 0
	for lines.Scan() {
		number++
		if line := bytes.TrimSpace(lines.Bytes()); len(line) > 0 {
			if err := visit(number, line); err != nil {
				return fmt.Errorf("%s, line %d: %w", printable(path), number, err)
			}
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("%s, line %d: longer than a statement may be, %d bytes", printable(path), number+1, federation.MaxSigned)
	} else if err != nil {
		return fmt.Errorf("%s: %w", printable(path), err)
	}
	return nil
}

func (a *app) signCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "sign --key FILE [DRAFT...]", Short: "Sign drafts with a key that is kept off the node", Args: cobra.ArbitraryArgs,
		Long: `Sign drafts, as the --draft of ban, retract, import and "list create" prints them,
one a line, from files or standard input, and print the signed statements, one a line.
It needs no node and no network. What is being signed is told on standard error:
read it, for you answer for it. "tocsin publish" brings the output to the node.`,
		Example: `  tocsin ban --list refused --draft shoes.jpg > drafts           # at the node
  tocsin sign --key admin.pem drafts > signed                    # where the key is
  tocsin publish signed                                          # at the node`,
	}
	keyFile := cmd.Flags().String("key", "", "PEM file of the private key (required)")
	required(cmd, "key")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		key, err := readPrivate[ed25519.PrivateKey](*keyFile, "signing key", "an Ed25519", "say with --key where it is")
		if err != nil {
			return err
		}
		if len(args) == 0 {
			args = []string{"-"}
		}
		out := bufio.NewWriter(a.out)
		signed := uint64(0)
		for _, path := range args {
			err := a.statementLines(path, func(_ int, line []byte) error {
				var draft struct {
					Actor string `json:"actor"`
				}
				if err := json.Unmarshal(line, &draft); err != nil || draft.Actor == "" {
					return errors.New("this is not a draft: a JSON object with an actor was expected")
				}
				issuer, err := federation.NewIssuer(draft.Actor, key)
				if err != nil {
					return err
				}
				r, err := issuer.SealDraft(line)
				if err != nil {
					return err
				}
				a.warn("signed: %s", printable(tellStatement(&r.Statement)))
				signed++
				_, err = fmt.Fprintf(out, "%s\n", r.Signed)
				return err
			})
			if err != nil {
				return errors.Join(err, out.Flush())
			}
		}
		if signed == 0 {
			a.warn("there was nothing to sign")
		}
		return out.Flush()
	}
	return cmd
}

// tellStatement says in a line what a statement does.
func tellStatement(s *hashlist.Statement) string {
	var what string
	switch s.Kind {
	case hashlist.AddHashes:
		what = fmt.Sprintf("put %s on %s", plural(uint64(len(s.Hashes)), "hash"), s.List)
		if s.Action != 0 {
			what += ", action " + s.Action.String()
		}
		if !s.Expires.IsZero() {
			what += ", until " + s.Expires.Format(time.RFC3339)
		}
	case hashlist.Retraction:
		what = "withdraw " + s.Retracts
		if len(s.Hashes) > 0 {
			what = fmt.Sprintf("withdraw %s of %s", plural(uint64(len(s.Hashes)), "hash"), s.Retracts)
		}
	case hashlist.DefineList:
		what = fmt.Sprintf("define list %s for %s, action %s", s.List, s.Definition.Audience, s.Definition.Action)
	default:
		what = fmt.Sprintf("%s on %s", s.Kind, s.List)
	}
	if s.Reason != "" {
		what += ": " + s.Reason
	}
	return what
}

func (a *app) publishCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "publish FILE", Short: "Give the node statements that were signed elsewhere", Args: cobra.ExactArgs(1),
		Long: `Give the node what "tocsin sign" printed, from a file or - for standard input. Each
statement must be of the node's issuer, of a list of the node, and signed with the
issuer's key of now. They are durable when they are told. Those that are in the log
already keep their places, so publishing again does no harm.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		var batch [][]byte
		size, total := 0, uint64(0)
		flush := func() error {
			if len(batch) == 0 {
				return nil
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
			defer cancel()
			answer, err := n.lists.Publish(ctx, &pb.PublishRequest{Signed: batch})
			if err != nil {
				before := ""
				if total > 0 {
					before = fmt.Sprintf("%s were published; ", plural(total, "statement"))
				}
				return fmt.Errorf("%snone of the %s was published: %w", before, plural(uint64(len(batch)), "statement"), plain(err))
			}
			batch, size = nil, 0
			for _, p := range answer.GetPublished() {
				total++
				if a.json {
					err = a.line(struct {
						Statement string `json:"statement_id"`
						Seq       uint64 `json:"seq"`
						Kind      string `json:"kind"`
						List      string `json:"list"`
					}{p.GetStatementId(), p.GetSeq(), p.GetKind(), p.GetList()})
				} else {
					_, err = fmt.Fprintf(a.out, "%d  %s  %s\n", p.GetSeq(), p.GetKind(), p.GetStatementId())
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
		err = a.statementLines(args[0], func(_ int, line []byte) error {
			if len(batch) == publishBatch || size+len(line) > publishBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			batch, size = append(batch, bytes.Clone(line)), size+len(line)
			return nil
		})
		if err == nil {
			err = flush()
		}
		if err == nil && total == 0 {
			err = fmt.Errorf("%s holds no statement", printable(args[0]))
		}
		return err
	}
	return cmd
}

const draftUsage = "print what is to be signed elsewhere, and change nothing"

// drafted prints what is to be signed elsewhere.
func (a *app) drafted(drafts ...[]byte) error {
	for _, d := range drafts {
		if len(d) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(a.out, "%s\n", d); err != nil {
			return err
		}
	}
	return nil
}
