package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/store"
)

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Copy the database of a node", Args: cobra.ExactArgs(1),
		Long: `Copy the database to a new file, which is complete and durable when the command
ends. A node that runs goes on meanwhile. The copy is of one moment and is put back
by naming it ` + databaseName + ` in the data directory of a stopped node.

Keep copies of config.toml and of the keys too: without its key nobody can speak
for the issuer again.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		err := a.backupRunning(cmd.Context(), c, args[0])
		if errors.Is(err, errNoNode) {
			err = a.backupStopped(cmd.Context(), args[0])
		}
		if err != nil {
			return named("back up to", args[0], err)
		}
		info, err := os.Stat(args[0])
		if err != nil {
			return err
		}
		if a.json {
			return a.line(struct {
				File  string `json:"file"`
				Bytes int64  `json:"bytes"`
			}{args[0], info.Size()})
		}
		_, err = fmt.Fprintf(a.out, "%s: %d bytes; keep %s and %s of the node with it\n", args[0], info.Size(), configName, keysName)
		return err
	}
	return cmd
}

func (a *app) backupStopped(ctx context.Context, path string) error {
	db, err := store.Open(ctx, filepath.Join(a.dataDir(), databaseName))
	if err != nil {
		return err
	}
	return errors.Join(db.Backup(ctx, path), db.Close())
}

// backupRunning fetches a copy from the node. It gets its name when it is
// whole: half a database looks like a backup until the day it is needed.
func (a *app) backupRunning(ctx context.Context, c *client, path string) (err error) {
	n, err := c.dial(ctx)
	if err != nil {
		return err
	}
	defer n.Close()
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists already and is left as it is: choose another name", path)
	}
	unfinished := path + ".new"
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		os.Remove(unfinished) // ours, by O_EXCL; gone already if all went well
	}()
	stream, err := n.admin.Backup(ctx, &pb.BackupRequest{})
	if err != nil {
		return err
	}
	var got, want uint64
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if _, err := f.Write(m.GetChunk()); err != nil {
			return err
		}
		got, want = got+uint64(len(m.GetChunk())), m.GetSize()
	}
	if got != want || got == 0 {
		return fmt.Errorf("the node sent %d of %d bytes: try again", got, want)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	// Link, not rename: it fails if somebody made a file of that name meanwhile.
	if err := os.Link(unfinished, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
