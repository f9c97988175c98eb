package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/exchange"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// formatsHelp lists the formats, as they are.
var formatsHelp = func() string {
	var b strings.Builder
	b.WriteString("The formats:\n")
	for _, f := range exchange.Formats() {
		fmt.Fprintf(&b, "  %-20s  %s\n", f.Name, f.Description)
	}
	b.WriteString("docs/exchange.md tells what each of them carries, and what is lost.")
	return b.String()
}()

// refusedShown is how many of the refused rows people are shown.
const refusedShown = 20

// progressEvery is the time between two lines about progress, where there is no terminal.
const progressEvery = 10 * time.Second

func (a *app) importCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import FILE --list NAME", Short: "Put what is in another system's file on a list", Args: cobra.ExactArgs(1),
		Long: `Put the hashes, servers or accounts of a file, or of standard input for -, on a list.
Hashes that are on it already are skipped: an import that was interrupted is simply
run again. Of a server or account of which the file says something else than the
list, what the file says is listed, and the old statement retracted.

What is not in the file stays on the list, whatever its format. With
--retract-absent, and a format in which a file is all there is (mastodon-api,
pleroma, lemmy, fires), it is retracted. If more than a third of the list would go, or
the file is empty, nothing of it is done until you say --approve. So it is with those
hashes that match what was let through lately, if together they match more of it than is
expected (flood in config.toml). --dry-run tells
beforehand what would change, and --report FILE writes it down.

Rows that are refused (no hash, the all-zero hash, low quality, a canary, a domain
with stars in it) are counted, and the first of them told with their line on
standard error; the exit status stays 0 unless every row is refused or something is held. With --strict
the import stops at the first of them with exit status 1; what was listed before
stays. With --json the refused rows, up to 10,000 of them, then the sum, are printed.

Data of a partner (ncmec, stopncii, techagainstterrorism) may only go to a list that is
marked for it with "tocsin list create NAME --partner", and never leaves it.

With --draft nothing is listed: the statements are printed as they are to be signed
with "tocsin sign", where the issuer's key is kept elsewhere, and everything else is
told on standard error.

` + formatsHelp,
		Example: `  tocsin import hashes.csv --list partner --format pytx
  tocsin import blocks.csv --list blocks --dry-run
  tocsin import bans.csv --list blocks --format csv --column domain=instance --column reason=why`,
	}
	list := cmd.Flags().String("list", "", "name of the list (required)")
	format := cmd.Flags().String("format", "auto", "name of the format; auto goes by how the file begins, and refuses to guess")
	columns := cmd.Flags().StringToString("column", nil, "of format csv: the name of a column, as in domain=instance (hash, algorithm, domain, account, action, labels, reason)")
	act := cmd.Flags().String("action", "", "what rows recommend that say nothing, where the format leaves it open: accept, filter, reject or drop")
	absent := cmd.Flags().Bool("retract-absent", false, "retract what is on the list and not in the file")
	approve := cmd.Flags().Bool("approve", false, "do also what was held for you")
	cmd.Flags().BoolVar(approve, "yes", false, "the same as --approve")
	reportTo := cmd.Flags().String("report", "", "file to write what was done to, as JSON; it must not exist yet")
	algorithm := cmd.Flags().String("algorithm", "", "algorithm of bare hashes")
	labels := cmd.Flags().StringSlice("label", nil, "label beside those of the list and of the rows; may be repeated")
	reason := cmd.Flags().String("reason", "", "why, for people")
	expires := cmd.Flags().String("expires", "", `when it lapses: a time such as "30d" or "12h", or a date such as 2030-12-31`)
	strict := cmd.Flags().Bool("strict", false, "stop at the first row that is refused")
	dryRun := cmd.Flags().Bool("dry-run", false, "read and check everything, list nothing")
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	cmd.MarkFlagsMutuallyExclusive("dry-run", "draft")
	quiet := cmd.Flags().Bool("no-progress", false, "do not tell how far it is")
	c := a.client(cmd)
	required(cmd, "list")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *format != "auto" {
			if _, err := exchange.Lookup(*format); err != nil {
				return a.usage("%w, or auto: `tocsin import --help` says what each of them is, and docs/exchange.md who writes it; without --format it is told from the file", err)
			}
		}
		recommends := pb.Action_ACTION_UNSPECIFIED
		if *act != "" {
			var err error
			if recommends, err = parseAction(*act); err != nil {
				return a.usage("%w", err)
			}
		}
		if err := checkRef(*list); err != nil {
			return a.usage("%w", err)
		}
		also, err := checkedLabels(*labels)
		if err != nil {
			return a.usage("%w", err)
		}
		if *algorithm != "" {
			if _, err := hashlist.ParseAlgorithm(*algorithm); err != nil {
				return a.usage("%w", err)
			}
		}
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return a.usage("%w", err)
		}
		f, err := a.open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		total := int64(-1)
		if file, ok := f.(*os.File); ok {
			if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
				total = info.Size()
			}
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		if err := checkList(cmd.Context(), n, *list); err != nil {
			return err
		}
		report := &importReport{List: *list, DryRun: *dryRun, Changes: []importChange{}, RefusedRows: []refusedRow{}}
		if err := report.create(*reportTo); err != nil {
			return err
		}
		defer report.close()
		p := a.progress("importing", total, *quiet)
		sum, err := a.importFile(cmd.Context(), n, f, p, report, &pb.ImportOptions{
			List: *list, Format: *format, Algorithm: *algorithm, Labels: also, Reason: *reason,
			Strict: *strict, DryRun: *dryRun, Expires: until, Draft: *draft,
			Action: recommends, Columns: *columns, RetractAbsent: *absent, Approve: *approve,
		})
		p.end()
		if e := report.write(sum, err); e != nil {
			err = errors.Join(err, e)
		}
		if sum == nil && cmd.Context().Err() != nil {
			sum = &pb.ImportResponse{} // interrupted before the node said anything
		}
		if more := sum.GetRefused(); more > refusedShown && !a.json {
			a.warn("and %s more refused rows; --json prints them", fmt.Sprint(more-refusedShown))
		}
		if sum.GetDone() && sum.GetRefused() > 0 && sum.GetRefused() == sum.GetRows() && err == nil {
			err = fmt.Errorf("nothing in %s was accepted: is its format %s? `tocsin import --help` describes the formats", printable(args[0]), cmp.Or(sum.GetFormat(), *format))
		}
		if held := sum.GetHeld(); held != "" && !*dryRun && err == nil {
			err = fmt.Errorf("held for you to decide: %s; nothing was done but to list the other hashes: look with --dry-run, then say --approve", printable(held))
		}
		if *draft {
			a.tellDrafted(sum, err, *list)
			return err
		}
		return errors.Join(a.printImport(sum, err, *list, *dryRun, *strict), err)
	}
	return cmd
}

// importFile sends a file and follows the import to its end. It returns the last
// counts it heard of, also with an error.
func (a *app) importFile(ctx context.Context, n *node, f io.Reader, p *progress, report *importReport, options *pb.ImportOptions) (*pb.ImportResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := n.lists.Import(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	sent := make(chan error, 1)
	go func() {
		buf := make([]byte, chunkSize)
		for first := true; ; first = false {
			k, err := io.ReadFull(f, buf)
			if k > 0 || first {
				r := &pb.ImportRequest{Chunk: buf[:k]}
				if first {
					r.Options = options
				}
				if stream.Send(r) != nil {
					break // the reason comes with Recv
				}
			}
			if err == io.EOF || err == io.ErrUnexpectedEOF {
				break
			} else if err != nil {
				sent <- err
				cancel() // the file must not end for the node where it could not be read
				return
			}
		}
		sent <- stream.CloseSend()
	}()
	var last *pb.ImportResponse
	shown := 0
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			cancel()
			return last, a.importDone(last)
		}
		if err != nil {
			cancel()
			select {
			case e := <-sent:
				if e != nil {
					err = e
				}
			default: // the sender may wait for standard input, which nothing ends
			}
			return last, plain(err)
		}
		last = r
		if len(r.GetDrafts()) > 0 {
			p.clear()
			if err := a.drafted(r.GetDrafts()...); err != nil {
				cancel()
				return last, err
			}
		}
		report.add(r)
		for _, row := range r.GetRefusedRows() {
			p.clear()
			if a.json && !options.GetDraft() {
				if err := a.line(refusedRow{row.GetLine(), row.GetReason()}); err != nil {
					cancel()
					return last, err
				}
			} else if shown++; shown <= refusedShown {
				a.warn("line %d: %s", row.GetLine(), printable(row.GetReason()))
			}
		}
		if options.GetDryRun() && !a.json {
			for _, c := range r.GetChanges() {
				p.clear()
				if _, err := fmt.Fprintln(a.out, printable(changeOf(c).String())); err != nil {
					cancel()
					return last, err
				}
			}
		}
		p.set(int64(r.GetBytes()), fmt.Sprintf("%d listed, %d skipped, %d refused", r.GetListed(), r.GetSkipped(), r.GetRefused()))
	}
}

func (a *app) importDone(last *pb.ImportResponse) error {
	if !last.GetDone() {
		return errors.New("the node ended the import before its end")
	}
	return nil
}

// tellDrafted tells of an import whose statements are to be signed elsewhere.
func (a *app) tellDrafted(sum *pb.ImportResponse, failed error, list string) {
	if failed != nil {
		a.warn("the drafts are not complete: make them again")
	}
	a.warn("%s: %s drafted for %s, %d there already, %s refused", plural(sum.GetRows(), "row"), plural(sum.GetListed(), "hash"), list,
		sum.GetSkipped(), plural(sum.GetRefused(), "row"))
}

func (a *app) printImport(sum *pb.ImportResponse, failed error, list string, dryRun, strict bool) error {
	if failed != nil && !sum.GetDone() && !(strict && sum.GetRefused() > 0) {
		a.warn("the import is not complete; run it again to go on, what is listed is skipped")
	}
	if sum == nil && failed != nil {
		return nil // nothing is known of how far it got
	}
	if a.json {
		return a.line(struct {
			List      string `json:"list"`
			Rows      uint64 `json:"rows"`
			Listed    uint64 `json:"listed"`
			Skipped   uint64 `json:"skipped"`
			Refused   uint64 `json:"refused"`
			DryRun    bool   `json:"dry_run"`
			Done      bool   `json:"done"`
			Format    string `json:"format"`
			New       uint64 `json:"new"`
			Changed   uint64 `json:"changed"`
			Retracted uint64 `json:"retracted"`
			Held      string `json:"held"`
			Matched   uint64 `json:"recent_matched"`
			Uploads   uint64 `json:"recent_uploads"`
		}{list, sum.GetRows(), sum.GetListed(), sum.GetSkipped(), sum.GetRefused(), dryRun, sum.GetDone(),
			sum.GetFormat(), sum.GetFresh(), sum.GetChanged(), sum.GetRetracted(), sum.GetHeld(),
			sum.GetRecentMatched(), sum.GetRecentUploads()})
	}
	noun := "hash"
	switch f, err := exchange.Lookup(sum.GetFormat()); {
	case err != nil:
	case f.Kinds[0] != hashlist.AddHashes:
		noun = "subject"
	case len(f.Kinds) > 1: // of any kind
		noun = "row"
	}
	did := plural(sum.GetListed(), noun) + " listed on " + list
	if !sum.GetDone() { // the node has finished what it had begun since it sent this
		did = "at least " + did
	}
	if dryRun { // the node counts none as listed
		did = plural(sum.GetFresh(), noun) + " would be listed on " + list
	}
	if c, r := sum.GetChanged(), sum.GetRetracted(); c+r > 0 {
		did += fmt.Sprintf(", %d changed, %d retracted", c, r)
	}
	if held := sum.GetHeld(); held != "" && dryRun {
		a.warn("this would be held for you to decide: %s; say --approve to have it done", printable(held))
	}
	_, err := fmt.Fprintf(a.out, "%s: %s, %d there already, %s refused\n",
		plural(sum.GetRows(), "row"), did, sum.GetSkipped(), plural(sum.GetRefused(), "row"))
	return err
}

func (a *app) exportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export LIST --format FORMAT", Short: "Write what is in force on a list in another system's format", Args: cobra.MaximumNArgs(1),
		Long: `Write what is in force on a list to standard output or to a new file. How much
the format cannot hold is told on standard error, or with --json and --output as
an object with file, hashes, subjects and left_out. A list may be confidential: what is
exported is yours to guard. A list of partner data is not exported.

--merged writes, in the place of a list, what this node makes of all lists of servers together: your own
lists decide, and others' as far as the policy believes them. It is what your own
servers read at /blocks.csv.

` + formatsHelp,
	}
	format := cmd.Flags().String("format", "", "name of the format (required)")
	output := cmd.Flags().StringP("output", "o", "-", "file to write; it must not exist yet")
	merged := cmd.Flags().Bool("merged", false, "what this node makes of all lists of servers")
	c := a.client(cmd)
	required(cmd, "format")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := exchange.Lookup(*format); err != nil {
			return a.usage("%w", err)
		}
		list := "" // all of them
		switch {
		case *merged == (len(args) == 1):
			return a.usage("export one list, or --merged")
		case !*merged:
			if list = args[0]; checkRef(list) != nil {
				return a.usage("%w", checkRef(list))
			}
		}
		if a.json && *output == "-" {
			return a.usage("--json needs --output FILE: the hashes go to standard output")
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		if list != "" {
			if err := a.tellWhose(cmd.Context(), n, list); err != nil {
				return err
			}
		}
		if *output != "-" {
			// Under another name until it is complete.
			part := *output + ".part"
			if _, err := os.Lstat(*output); err == nil {
				return fmt.Errorf("%s exists already and is left as it is", *output)
			}
			f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return named("export to", *output, err)
			}
			defer os.Remove(part)
			defer f.Close()
			sum, err := a.export(cmd.Context(), n, list, *format, f)
			if err == nil {
				err = f.Sync()
			}
			if err == nil {
				err = os.Link(part, *output)
			}
			if err == nil {
				err = syncDir(filepath.Dir(*output))
			}
			if err != nil {
				return named("export to", *output, err)
			}
			return a.printExport(sum, *output, *format)
		}
		sum, err := a.export(cmd.Context(), n, list, *format, a.out)
		if err != nil {
			return err
		}
		return a.printExport(sum, *output, *format)
	}
	return cmd
}

// tellWhose says so before a list leaves that is not this node's to give away.
func (a *app) tellWhose(ctx context.Context, n *node, list string) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := n.lists.GetList(ctx, &pb.GetListRequest{List: list})
	if err != nil {
		return err
	}
	if l := answer.GetList(); !l.GetOwn() && l.GetAudience() != pb.Audience_AUDIENCE_PUBLIC {
		a.warn("list %s is %s's, for its %s alone: do not pass it on", handle(l.GetId()), hostOf(l.GetId()), word(l.GetAudience()))
	}
	return nil
}

// export writes a list to w. It returns the counts.
func (a *app) export(ctx context.Context, n *node, list, format string, w io.Writer) (*pb.ExportResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := n.lists.Export(ctx, &pb.ExportRequest{List: list, Format: format, Merged: list == ""})
	if err != nil {
		return nil, err
	}
	var last *pb.ExportResponse
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return last, nil
		} else if err != nil {
			return nil, plain(err)
		}
		last = r
		if _, err := w.Write(r.GetChunk()); err != nil {
			return nil, err
		}
	}
}

func (a *app) printExport(last *pb.ExportResponse, file, format string) error {
	if a.json {
		return a.line(struct {
			File    string `json:"file"`
			Hashes  uint64 `json:"hashes"`
			LeftOut uint64 `json:"left_out"`
			Others  uint64 `json:"subjects"`
		}{file, last.GetHashes(), last.GetLeftOut(), last.GetSubjects()})
	}
	wrote := plural(last.GetHashes(), "hash")
	switch k := last.GetSubjects(); {
	case k > 0 && last.GetHashes() > 0:
		wrote += " and " + plural(k, "subject")
	case k > 0:
		wrote = plural(k, "subject")
	}
	if k := last.GetLeftOut(); k > 0 {
		a.warn("%s written, %d left out because format %s cannot hold them", wrote, k, format)
	} else {
		a.warn("%s written", wrote)
	}
	return nil
}

// required marks flags without which a command does not run.
func required(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is missing in this program
		}
	}
}

// progress tells on standard error how far a file is: with a bar on a terminal,
// else with a line now and then. Its zero value tells nothing.
type progress struct {
	what  string
	total int64 // bytes, -1 if unknown
	bar   *progressbar.ProgressBar
	w     io.Writer
	next  time.Time
}

func (a *app) progress(what string, total int64, quiet bool) *progress {
	p := &progress{what: what, total: total, next: time.Now().Add(progressEvery)}
	switch {
	case quiet:
	case terminal(a.err):
		p.bar = progressbar.NewOptions64(total, progressbar.OptionSetWriter(a.err), progressbar.OptionShowBytes(true),
			progressbar.OptionSetDescription(what), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100*time.Millisecond))
	default:
		p.w = a.err
	}
	return p
}

func (p *progress) set(bytes int64, counts string) {
	if p.bar != nil {
		p.bar.Describe(p.what + ": " + counts)
		_ = p.bar.Set64(bytes) // only drawing can fail
		return
	}
	if now := time.Now(); p.w != nil && now.After(p.next) {
		share := ""
		if p.total > 0 {
			share = fmt.Sprintf(" %d%%", bytes*100/p.total)
		}
		fmt.Fprintf(p.w, "%s%s: %s\n", p.what, share, counts)
		p.next = now.Add(progressEvery)
	}
}

// clear makes room for a line of text.
func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

func (a *app) watchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch", Short: "Print every statement as the node accepts it", Args: cobra.NoArgs,
		Long: `Print the statements behind a place in the log, and go on with new ones until
interrupted. With --json each line has the statement as it was signed.`,
	}
	after := cmd.Flags().Uint64("after", 0, "begin behind this place in the log")
	list := cmd.Flags().String("list", "", "only statements of this list")
	count := cmd.Flags().Uint64("count", 0, "end after so many; 0 to go on")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *list != "" {
			if err := checkRef(*list); err != nil {
				return a.usage("%w", err)
			}
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		stream, err := n.lists.Watch(ctx, &pb.WatchRequest{After: *after, List: *list})
		if err != nil {
			return err
		}
		for seen := uint64(1); ; seen++ {
			r, err := stream.Recv()
			if err == io.EOF || cmd.Context().Err() != nil {
				return nil // interrupting is how it ends
			} else if err != nil {
				return err
			}
			if a.json {
				err = a.line(struct {
					Seq       uint64    `json:"seq"`
					Received  *string   `json:"received"`
					Kind      string    `json:"kind"`
					Statement string    `json:"statement_id"`
					Signed    rawObject `json:"signed"`
				}{r.GetSeq(), stamp(r.GetReceived()), r.GetKind(), r.GetStatementId(), r.GetSigned()})
			} else {
				_, err = fmt.Fprintf(a.out, "%d  %s  %s  %s\n", r.GetSeq(), or(stamp(r.GetReceived()), ""), r.GetKind(), r.GetStatementId())
			}
			if err != nil {
				return err
			}
			if seen == *count {
				return nil
			}
		}
	}
	return cmd
}

// rawObject is JSON that is passed on. Its bytes were signed, but what was
// signed is their canonical form, so spaces may go.
type rawObject []byte

// MarshalJSON implements json.Marshaler.
func (r rawObject) MarshalJSON() ([]byte, error) {
	if len(strings.TrimSpace(string(r))) == 0 {
		return []byte("null"), nil
	}
	return r, nil
}
