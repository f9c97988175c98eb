package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// scanLine is what scan prints of one file.
type scanLine struct {
	File    string `json:"file"`
	Answer  string `json:"answer"`  // clean, refused or unknown
	Verdict string `json:"verdict"` // the node's, empty if unknown
	Error   string `json:"error,omitempty"`
}

func (a *app) scanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "scan FILE...", Short: "Say by the exit status whether files are to be refused", Args: cobra.MinimumNArgs(1),
		Long: `Ask the node about files, for programs that run a scanner and look at its exit
status, such as matrix-content-scanner. Each file is sent to the node, which forgets it at
once. Nothing is said of lists, distances and hashes: the output may be shown to whoever uploaded.

Exit status: 0 if all are clean, 3 if one is to be refused. 1 if none is, but one could not be
examined (no picture, broken, a video where there is no ffmpeg, too large), or the node could not be asked. --unknown
accept makes what is no picture, broken or a video clean, and nothing else. In
matrix-content-scanner set do_not_cache_exit_codes: [1, 2], so that trouble is not remembered.`,
		Example: "  tocsin scan --data /var/lib/tocsin upload.jpg",
	}
	unknown := cmd.Flags().String("unknown", "reject", "what a file that cannot be examined is: accept or reject")
	hold := cmd.Flags().String("hold", "reject", "what a file is that the policy would hold: accept or reject")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, v := range []string{*unknown, *hold} {
			if err := oneOf(v, "accept", "reject"); err != nil {
				return a.usage("%w", err)
			}
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		var errs []error
		refused := false
		for _, name := range args {
			line := scanLine{File: name, Answer: "clean"}
			ctx, cancel := context.WithTimeout(cmd.Context(), callTime)
			answer, err := a.lookupFile(ctx, n, name, &pb.LookupMediaOptions{Limit: 1})
			cancel()
			v := answer.GetLookup().GetVerdict()
			switch {
			case err != nil:
				line.Error = plain(err).Error()
				if status.Code(err) != codes.InvalidArgument || *unknown != "accept" {
					line.Answer = "unknown"
					errs = append(errs, fmt.Errorf("%s: %w", printable(name), plain(err)))
				}
			case v == pb.Verdict_VERDICT_REJECT, v == pb.Verdict_VERDICT_HOLD && *hold != "accept":
				line.Answer, refused = "refused", true
			}
			line.Verdict = word(v)
			if err := a.printScan(line); err != nil {
				return errors.Join(append(errs, err)...)
			}
		}
		err = errors.Join(errs...)
		if refused {
			if err != nil {
				a.tell(err)
			}
			return errMatch
		}
		return err
	}
	return cmd
}

func (a *app) printScan(l scanLine) error {
	if a.json {
		return a.line(l)
	}
	_, err := fmt.Fprintf(a.out, "%s: %s\n", printable(l.File), l.Answer)
	return err
}
