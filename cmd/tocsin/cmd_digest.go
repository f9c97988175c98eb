package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) digestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "digest", Short: "See or send what happened since the last digest", Args: cobra.NoArgs,
		Long: `See or send what happened since the last digest: what was refused, held and found,
what was done on platforms, and what waits for a person. It has counts and
references, no hashes and no pictures. It is sent every day at digest.at, by mail
or to a web hook, if config.toml says where to.`,
	}
	show := &cobra.Command{
		Use: "show", Short: "Print the digest as it would be sent now", Args: cobra.NoArgs,
	}
	c := a.client(show)
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewDigestServiceClient(n).GetDigest(ctx, &pb.GetDigestRequest{})
			if err != nil {
				return err
			}
			if a.json {
				_, err = fmt.Fprintln(a.out, answer.GetJson())
				return err
			}
			for line := range strings.Lines(answer.GetText()) {
				fmt.Fprintln(a.out, printable(strings.TrimSuffix(line, "\n")))
			}
			return nil
		})
	}
	send := &cobra.Command{
		Use: "send", Short: "Send the digest now; the next one counts from here", Args: cobra.NoArgs,
	}
	d := a.client(send)
	send.RunE = func(cmd *cobra.Command, _ []string) error {
		return d.callFor(cmd, 3*time.Minute, func(ctx context.Context, n *node) error {
			answer, err := pb.NewDigestServiceClient(n).SendDigest(ctx, &pb.SendDigestRequest{})
			if err != nil {
				return err
			}
			if a.json {
				return a.line(map[string][]string{"sent": some(answer.GetSent())})
			}
			_, err = fmt.Fprintf(a.out, "sent to %s\n", printable(strings.Join(answer.GetSent(), ", ")))
			return err
		})
	}
	cmd.AddCommand(show, send)
	return cmd
}
