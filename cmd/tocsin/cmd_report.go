package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
	"github.com/tocsin-fed/tocsin/report"
)

// The files of a draft, in a directory that only its owner can enter.
const (
	reportFile  = "report.xml"
	detailsFile = "file.xml"
	summaryFile = "summary.txt"
	caseFile    = "case.json"
)

// draftCase is what a draft is about.
type draftCase struct {
	Verdict string `json:"verdict"`
}

func (a *app) reportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "report", Short: "Write reports to authorities, and send them deliberately", Args: cobra.NoArgs,
		Long: `Write reports to authorities about what was found, and, as a step of its own, send
them. A draft is written from the audit log: hashes, times, what it matched, who
decided what. It holds no media, and it claims that a person looked at the file
only if you say who did.

Whether you must report, to whom and how soon, is for the law where you are.`,
	}
	cmd.AddCommand(a.reportDraftCommand(), a.reportCheckCommand(), a.reportSendCommand(), a.reportRecordCommand(), a.reportListCommand())
	return cmd
}

func (a *app) reportDraftCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "draft VERDICT --out DIR", Short: "Write a report about a verdict into a new directory", Args: cobra.ExactArgs(1),
		Long: `Write a report about a verdict into a new directory that only you can enter:
report.xml and file.xml for NCMEC's CyberTipline, and summary.txt, the same in
plain words, for other hotlines. Read them, add what you know and the node does
not (file.xml and report.xml may be edited), then "tocsin report send DIR".

VERDICT is the id that lookups of uploads return and hooks log. Of a file that you found
in another way, "tocsin lookup --upload FILE" gives one if the node holds or refuses it.`,
		Example: `  tocsin report draft 01kb2q6w --out report-01kb2q6w
  tocsin report draft 01kb2q6w --out report-01kb2q6w --viewed-by "Ada Example"`,
	}
	out := cmd.Flags().String("out", "", "directory to make (required)")
	viewed := cmd.Flags().String("viewed-by", "", "who looked at the file with their own eyes; without it, the report says that nobody did")
	incident := cmd.Flags().String("incident", "", "NCMEC's name of what happened (default: "+report.Incidents[0]+")")
	class := cmd.Flags().String("classification", "", "A1, A2, B1 or B2, by who looked")
	c := a.client(cmd)
	required(cmd, "out")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			d, err := pb.NewReportServiceClient(n).DraftReport(ctx, &pb.DraftReportRequest{VerdictId: args[0], ViewedBy: *viewed, IncidentType: *incident, Classification: *class})
			if err != nil {
				return err
			}
			about, err := json.Marshal(draftCase{args[0]})
			if err != nil {
				return err
			}
			if err := os.Mkdir(*out, 0o700); err != nil {
				return named("write the report into", *out, err)
			}
			for name, text := range map[string][]byte{
				reportFile: d.GetReportXml(), detailsFile: d.GetFileXml(), summaryFile: []byte(d.GetSummary()), caseFile: append(about, '\n'),
			} {
				if err := writeNew(filepath.Join(*out, name), text); err != nil {
					return err
				}
			}
			if a.json {
				return a.line(struct {
					Directory string   `json:"directory"`
					Verdict   string   `json:"verdict"`
					Open      []string `json:"open"`
				}{*out, args[0], some(d.GetOpen())})
			}
			fmt.Fprintf(a.out, "wrote a draft into %s; nothing was sent\n", *out)
			for _, o := range d.GetOpen() {
				fmt.Fprintf(a.out, "  - %s\n", printable(o))
			}
			_, err = fmt.Fprintf(a.out, "Read it, then: tocsin report send %s --credentials FILE\n", *out)
			return err
		})
	}
	return cmd
}

// readDraft reads a draft's XML and what it is about.
func readDraft(dir string) (text, details []byte, about draftCase, err error) {
	if text, err = readBounded(filepath.Join(dir, reportFile), report.MaxXML); err != nil {
		return
	}
	if details, err = readBounded(filepath.Join(dir, detailsFile), report.MaxXML); err != nil {
		return
	}
	b, err := readBounded(filepath.Join(dir, caseFile), 4096)
	if err == nil {
		err = json.Unmarshal(b, &about)
	}
	if err == nil && about.Verdict == "" {
		err = errors.New("it names no verdict")
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", filepath.Join(dir, caseFile), err)
	}
	return
}

func (a *app) reportCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "check DIR", Short: "Say whether NCMEC would take the XML of a draft", Args: cobra.ExactArgs(1),
		Long: `Check the XML of a draft, which may have been edited: every element known, in NCMEC's
order, none missing, times with a zone and in the past. Nothing is sent.

What is checked are the files in DIR, as they would be sent. Who reports was written into
them from [report] of config.toml, as the node had read it when it started. Where
config.toml, or the node that runs, has something else by now, it is told.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, details, about, err := readDraft(args[0])
		if err != nil {
			return err
		}
		drafted, err := report.ReporterOf(text)
		if err == nil {
			a.tellReporter(cmd.Context(), c, about.Verdict, &drafted)
		} // else Check says why
		if err := report.Check(text, time.Now()); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(args[0], reportFile), err)
		}
		// What is filled in when it is sent.
		if err := report.Check(report.Filled(details), time.Now()); err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(args[0], detailsFile), err)
		}
		if a.json {
			return a.line(struct {
				OK      bool   `json:"ok"`
				Verdict string `json:"verdict"`
				Email   string `json:"reporter_email"`
			}{true, about.Verdict, drafted.Email})
		}
		_, err = fmt.Fprintf(a.out, "the draft about verdict %s is in order; it is sent as it is in %s, and %s reports\n", printable(about.Verdict), args[0], printable(drafted.Email))
		return err
	}
	return cmd
}

// tellReporter warns where config.toml, or the node that runs, says something else of who
// reports than a draft. Where it cannot be told, it is silent: a draft can be checked anywhere.
func (a *app) tellReporter(ctx context.Context, c *client, verdict string, drafted *report.Reporter) {
	told := false
	conf, confErr := loadConfig(a.dataDir(), os.Environ(), nil)
	if confErr == nil && c.server == "" {
		configured := report.Reporter(conf.Report)
		for _, d := range differing(&configured, drafted) {
			told = true
			a.warn("config.toml has %s = %q, the draft %q", d[0], d[1], d[2])
		}
	}
	if n, err := c.dial(ctx); err == nil {
		defer n.Close()
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		// A draft written now, which is thrown away, has what the node has read.
		if now, err := pb.NewReportServiceClient(n).DraftReport(ctx, &pb.DraftReportRequest{VerdictId: verdict}); err == nil {
			if running, err := report.ReporterOf(now.GetReportXml()); err == nil {
				if confErr == nil && c.server == "" {
					configured := report.Reporter(conf.Report)
					for _, d := range differing(&configured, &running) {
						a.warn("the node that runs has still %s = %q: restart it, so that its drafts have %q", d[0], d[2], d[1])
					}
				} else {
					for _, d := range differing(&running, drafted) {
						told = true
						a.warn("the node that runs has %s = %q, the draft %q", d[0], d[1], d[2])
					}
				}
			}
		}
	}
	if told {
		a.warn("the draft is sent as it is: edit its %s, or draft it anew", reportFile)
	}
}

// differing are the settings of which two reporters have other values: their names and both values.
func differing(a, b *report.Reporter) (all [][3]string) {
	for _, d := range [][3]string{
		{"report.first_name", a.FirstName, b.FirstName}, {"report.last_name", a.LastName, b.LastName}, {"report.email", a.Email, b.Email},
		{"report.company", a.Company, b.Company}, {"report.terms_url", a.TermsURL, b.TermsURL}, {"report.legal_url", a.LegalURL, b.LegalURL},
	} {
		if d[1] != d[2] {
			all = append(all, d)
		}
	}
	return all
}

func (a *app) reportSendCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "send DIR --credentials FILE", Short: "Send a draft to NCMEC's CyberTipline", Args: cobra.ExactArgs(1),
		Long: `Send a draft to NCMEC's CyberTipline, and note it: one report of a verdict is sent
once. The credentials are a file that only you can read, with the user name and
the password that NCMEC gave you, each on a line.

NCMEC wants the file itself if you have it, which the node does not: --file
uploads it. Without it, the hashes stand in the report. If anything fails before
the end, the report is cancelled.

It asks before it sends, unless --yes is given. --test sends to NCMEC's test
system, which notes nothing here.`,
		Example: "  tocsin report send report-01kb2q6w --credentials ncmec.txt --test",
	}
	credentials := cmd.Flags().String("credentials", "", "file with the user name and the password (required)")
	file := cmd.Flags().String("file", "", "the file that is reported, to be uploaded")
	test := cmd.Flags().Bool("test", false, "send to NCMEC's test system")
	address := cmd.Flags().String("url", "", "address of the service, for tests")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	again := cmd.Flags().Bool("again", false, "send although a report was begun of which nobody knows whether it was taken")
	who := cmd.Flags().String("who", "", "who sends it, beside the name of the token")
	c := a.client(cmd)
	required(cmd, "credentials")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		text, details, about, err := readDraft(args[0])
		if err != nil {
			return err
		}
		secret, err := readSecret(*credentials)
		if err != nil {
			return err
		}
		user, password, ok := strings.Cut(secret, "\n")
		if !ok {
			return fmt.Errorf("%s should have the user name on its first line and the password on its second", *credentials)
		}
		tip := report.Tipline{URL: report.Production, User: strings.TrimSpace(user), Password: strings.TrimSpace(password)}
		if *test {
			tip.URL = report.Test
		}
		if *address != "" {
			tip.URL = *address
		}
		tip.Progress = func(step string) { a.warn("%s", step) }
		var media io.Reader
		if *file != "" {
			f, err := os.Open(*file)
			if err != nil {
				return err
			}
			defer f.Close()
			media = f
		}
		if !*yes {
			fmt.Fprintf(a.err, "Send the report about verdict %s to %s? Type yes: ", printable(about.Verdict), tip.URL)
			if answer, _ := bufio.NewReader(a.in).ReadString('\n'); strings.TrimSpace(answer) != "yes" {
				return errors.New("nothing was sent")
			}
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		note := func(number string) error {
			if *test {
				return nil
			}
			ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), callTime)
			defer cancel()
			_, err := pb.NewReportServiceClient(n).RecordReport(ctx, &pb.RecordReportRequest{VerdictId: about.Verdict, Agency: "ncmec", Number: number, Who: *who, Again: *again})
			return err
		}
		// Noted before it leaves, so that nobody sends it twice because the first time was cut off.
		if err := note(""); err != nil {
			return err
		}
		number, err := tip.Send(cmd.Context(), text, details, filepath.Base(*file), media, time.Now())
		if err != nil {
			return err
		}
		if err := note(number); err != nil {
			return fmt.Errorf("NCMEC has taken the report as %s, but that could not be noted: run `tocsin report record %s --agency ncmec --number %s`: %w",
				printable(number), about.Verdict, printable(number), err)
		}
		if a.json {
			return a.line(struct {
				Verdict string `json:"verdict"`
				Number  string `json:"number"`
				Test    bool   `json:"test"`
			}{about.Verdict, number, *test})
		}
		_, err = fmt.Fprintf(a.out, "NCMEC has taken the report as %s\nPreserve what it is about for a year: `tocsin review list` reminds you.\n", printable(number))
		return err
	}
	return cmd
}

func (a *app) reportRecordCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "record VERDICT --agency NAME --number NUMBER", Short: "Note a report that you made in another way", Args: cobra.ExactArgs(1),
		Long: `Note a report that you made in another way, such as through the form of a hotline,
so that it is not made twice, and that you are reminded to preserve what it is about.`,
		Example: "  tocsin report record 01kb2q6w --agency inhope --number 2026-4711",
	}
	agency := cmd.Flags().String("agency", "", "to whom: ncmec, or the name of a hotline (required)")
	number := cmd.Flags().String("number", "", "what they call it (required)")
	who := cmd.Flags().String("who", "", "who made it, beside the name of the token")
	c := a.client(cmd)
	required(cmd, "agency")
	required(cmd, "number")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			if _, err := pb.NewReportServiceClient(n).RecordReport(ctx, &pb.RecordReportRequest{VerdictId: args[0], Agency: *agency, Number: *number, Who: *who}); err != nil {
				return err
			}
			if a.json {
				return a.line(struct {
					Verdict string `json:"verdict"`
					Agency  string `json:"agency"`
					Number  string `json:"number"`
				}{args[0], *agency, *number})
			}
			_, err := fmt.Fprintf(a.out, "noted: verdict %s was reported to %s as %s\n", printable(args[0]), printable(*agency), printable(*number))
			return err
		})
	}
	return cmd
}

func (a *app) reportListCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List what was reported", Args: cobra.NoArgs}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := pb.NewReportServiceClient(n).ListReports(ctx, &pb.ListReportsRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, r := range answer.GetReports() {
				if a.json {
					if err := a.line(struct {
						Verdict string  `json:"verdict"`
						Agency  string  `json:"agency"`
						Number  string  `json:"number"`
						Begun   *string `json:"begun"`
						Sent    *string `json:"sent"`
						Who     string  `json:"who"`
					}{r.GetVerdictId(), r.GetAgency(), r.GetNumber(), stamp(r.GetBegun()), stamp(r.GetSent()), r.GetWho()}); err != nil {
						return err
					}
					continue
				}
				number := r.GetNumber()
				if number == "" {
					number = "not known"
				}
				rows = append(rows, []string{r.GetVerdictId(), r.GetAgency(), number, or(stamp(r.GetSent()), ""), r.GetWho()})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("nothing was reported")
				return nil
			}
			return a.table([]string{"VERDICT", "AGENCY", "NUMBER", "SENT", "BY"}, rows)
		})
	}
	return cmd
}
