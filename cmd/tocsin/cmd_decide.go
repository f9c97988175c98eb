package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// proposed tells that something waits for a second person.
func (a *app) proposed(subject, review string) error {
	if a.json {
		return a.line(struct {
			Subject string `json:"subject"`
			Review  string `json:"review_id"`
		}{subject, review})
	}
	_, err := fmt.Fprintf(a.out, "%s: two persons have to agree: it waits for a second one\n  tocsin review decide %s approve\n", printable(subject), review)
	return err
}

// subjectFlags gives cmd the flags that name what is no media, and returns what reads them.
func subjectFlags(cmd *cobra.Command) func() ([]*pb.SubmitSubjectsRequest, error) {
	f := cmd.Flags()
	accounts := f.StringArray("account", nil, "address of an account; may be repeated")
	instances := f.StringArray("instance", nil, "domain of a server; may be repeated")
	content := f.StringArray("content", nil, "address of a post or file; may be repeated")
	return func() ([]*pb.SubmitSubjectsRequest, error) {
		var all []*pb.SubmitSubjectsRequest
		for _, k := range []struct {
			kind     pb.SubjectKind
			of       hashlist.Kind
			subjects []string
		}{
			{pb.SubjectKind_SUBJECT_KIND_ACCOUNT, hashlist.AddAccounts, *accounts},
			{pb.SubjectKind_SUBJECT_KIND_INSTANCE, hashlist.AddInstances, *instances},
			{pb.SubjectKind_SUBJECT_KIND_CONTENT, hashlist.AddContent, *content},
		} {
			for _, s := range k.subjects {
				if err := hashlist.CheckSubject(k.of, s); err != nil {
					return nil, err
				}
			}
			if len(k.subjects) > 0 {
				all = append(all, &pb.SubmitSubjectsRequest{Kind: k.kind, Subjects: k.subjects})
			}
		}
		return all, nil
	}
}

// banSubjects lists what is no media, all of a kind in one statement.
func (a *app) banSubjects(ctx context.Context, n *node, r *pb.SubmitSubjectsRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := n.says.SubmitSubjects(ctx, r)
	if err != nil {
		return err
	}
	noun := map[pb.SubjectKind]string{
		pb.SubjectKind_SUBJECT_KIND_ACCOUNT: "account", pb.SubjectKind_SUBJECT_KIND_INSTANCE: "server", pb.SubjectKind_SUBJECT_KIND_CONTENT: "address",
	}[r.GetKind()]
	switch {
	case r.GetDraft():
		return a.drafted(answer.GetDraft())
	case answer.GetReviewId() != "":
		return a.proposed(noun+" "+r.GetSubjects()[0], answer.GetReviewId())
	case a.json:
		return a.line(struct {
			Kind          string   `json:"kind"`
			Subjects      []string `json:"subjects"`
			List          string   `json:"list"`
			Statement     string   `json:"statement_id"`
			Seq           uint64   `json:"seq"`
			AlreadyListed uint32   `json:"already_listed"`
		}{noun, r.GetSubjects(), r.GetList(), answer.GetStatementId(), answer.GetSeq(), answer.GetAlreadyListed()})
	}
	listed := len(r.GetSubjects()) - int(answer.GetAlreadyListed())
	if listed == 0 {
		_, err = fmt.Fprintf(a.out, "%s: on list %s already\n", plural(uint64(len(r.GetSubjects())), noun), r.GetList())
		return err
	}
	_, err = fmt.Fprintf(a.out, "%s put on list %s\n  statement %s\n", plural(uint64(listed), noun), r.GetList(), answer.GetStatementId())
	return err
}

func (a *app) allowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "allow FILE|HASH...", Short: "Let pictures pass, whatever others list", Args: cobra.MinimumNArgs(1),
		Long: `Say that pictures are harmless. They pass here from now on, whatever other nodes list
or will list, and so do copies that are at least as near to them as to what was listed.
It goes on the local list of decisions (review.decisions) as a signed statement; nobody else is
told. "tocsin retract" takes it back.

To tell the issuer that a statement is wrong, use "tocsin dispute"; to pass over one
statement whatever it lists, "tocsin ignore".

Files are hashed here and do not leave this machine. A hash is written algorithm:hex.`,
		Example: `  tocsin allow logo.png --reason "our own logo"
  tocsin allow pdq:f8f8... --reason "a painting" --expires 365d`,
	}
	reason := cmd.Flags().String("reason", "", "why, for those who look at it later (required)")
	expires := cmd.Flags().String("expires", "", `when it lapses: a time such as "30d" or "12h", or a date such as 2030-12-31`)
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	required(cmd, "reason")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return a.usage("%w", err)
		}
		hashes := make([]hashlist.Hash, len(args))
		for i, arg := range args {
			if hashes[i], _, err = parseSubject(arg, 0); err != nil {
				return a.usage("%w", err)
			}
		}
		n, err := c.dial(cmd.Context())
		if err != nil {
			return err
		}
		defer n.Close()
		return a.withHasher(func(hasher *imagehash.Hasher) error {
			var errs []error
			for i, arg := range args {
				r := &pb.SubmitDecisionRequest{Choice: pb.ReviewChoice_REVIEW_CHOICE_ALLOW, Reason: *reason, Expires: until, Draft: *draft}
				if !hashes[i].IsZero() {
					r.Hashes = []string{hashes[i].String()}
				} else {
					m, err := a.hashFile(cmd.Context(), hasher, arg)
					if err != nil {
						errs = append(errs, err)
						continue
					}
					r.Hashes, r.Quality = a.choose(arg, &m, []hashlist.Algorithm{hashlist.PDQ, hashlist.SHA256}, true, hashlist.DefaultPolicy().MinQuality)
				}
				if err := a.allow(cmd.Context(), n, arg, r); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", printable(arg), plain(err)))
				}
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}

func (a *app) allow(ctx context.Context, n *node, subject string, r *pb.SubmitDecisionRequest) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	answer, err := n.says.SubmitDecision(ctx, r)
	if err != nil {
		return err
	}
	made := answer.GetSubmitted()
	switch {
	case r.GetDraft():
		return a.drafted(made.GetDraft())
	case made.GetReviewId() != "":
		return a.proposed(subject, made.GetReviewId())
	case a.json:
		return a.line(banLine{subject, answer.GetList(), r.GetHashes(), nil, made.GetStatementId(), made.GetSeq(), made.GetAlreadyListed()})
	case made.GetStatementId() == "":
		_, err = fmt.Fprintf(a.out, "%s: allowed already\n", printable(subject))
	default:
		_, err = fmt.Fprintf(a.out, "%s: passes here from now on\n  statement %s on list %s\n", printable(subject), made.GetStatementId(), answer.GetList())
	}
	return err
}

func (a *app) confirmCommand() *cobra.Command {
	return a.opinionCommand(pb.Opinion_OPINION_CONFIRM, "confirm", "Say that a statement of another node is right",
		`Say, as a signed statement, that a statement of another issuer is right. Those who read
this node's list of opinions (review.opinions), and believe this node, believe that
statement more. A statement of one's own needs no confirmation.`)
}

func (a *app) disputeCommand() *cobra.Command {
	return a.opinionCommand(pb.Opinion_OPINION_DISPUTE, "dispute", "Say that a statement of another node is wrong",
		`Say, as a signed statement, that a statement of another issuer is wrong, and send it to
the issuer's node, where a person has to answer it: by confirming the statement once more,
or by retracting it. Here the statement does not act from now on; those who read this
node's list of opinions (review.opinions), and believe this node, believe it less until it is answered.
"tocsin disputes" shows what was answered.

To pass over a statement here and tell nobody, use "tocsin ignore".`)
}

func (a *app) ignoreCommand() *cobra.Command {
	return a.opinionCommand(pb.Opinion_OPINION_IGNORE, "ignore", "Pass over a statement of another node here",
		`Have a statement of another issuer not act here. It is a signed statement on the local
list of decisions (review.decisions), so nobody else is told. "tocsin retract" takes
it back. To tell the issuer that the statement is wrong, use "tocsin dispute".`)
}

func (a *app) opinionCommand(what pb.Opinion, name, short, long string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " STATEMENT...", Short: short, Args: cobra.MinimumNArgs(1),
		Long: long + `

With --draft nothing is said: the statement is printed as it is to be signed with
"tocsin sign", where the issuer's key is kept elsewhere. It is not sent by itself then.`,
		Example: "  tocsin " + name + ` https://other.example/statements/... --reason "a painting that hangs in a museum"`,
	}
	reason := cmd.Flags().String("reason", "", "why, for people")
	expires := cmd.Flags().String("expires", "", `when it lapses: a time such as "30d" or "12h", or a date such as 2030-12-31`)
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	list := new(string)
	if what != pb.Opinion_OPINION_IGNORE {
		list = cmd.Flags().String("list", "", "name of the list it goes to (default: review.opinions)")
	}
	c := a.client(cmd)
	if what != pb.Opinion_OPINION_CONFIRM {
		required(cmd, "reason")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		until, err := parseExpiry(*expires, time.Now())
		if err != nil {
			return a.usage("%w", err)
		}
		for _, id := range args {
			if _, err := hashlist.Origin(id); err != nil {
				return a.usage("%q is not the id of a statement, which is an address: %w", id, err)
			}
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			var errs []error
			for _, id := range args {
				answer, err := n.says.SubmitOpinion(ctx, &pb.SubmitOpinionRequest{
					StatementId: id, Opinion: what, List: *list, Reason: *reason, Expires: until, Draft: *draft,
				})
				if err == nil {
					err = a.printOpinion(id, name, *draft, answer)
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", printable(id), plain(err)))
				}
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}

func (a *app) printOpinion(about, name string, draft bool, answer *pb.SubmitOpinionResponse) error {
	switch {
	case draft && answer.GetStatementId() == "":
		return a.drafted(answer.GetDraft())
	case answer.GetReviewId() != "":
		return a.proposed(name+" "+about, answer.GetReviewId())
	case a.json:
		return a.line(struct {
			About       string `json:"about"`
			Statement   string `json:"statement_id"`
			Seq         uint64 `json:"seq"`
			GivenBefore bool   `json:"given_before"`
			SentTo      string `json:"sent_to"`
		}{about, answer.GetStatementId(), answer.GetSeq(), answer.GetGivenBefore(), answer.GetSentTo()})
	}
	text := map[string]string{"confirm": "confirmed", "dispute": "disputed", "ignore": "does not act here from now on"}[name]
	if answer.GetGivenBefore() {
		text += ", as before"
	}
	if answer.GetSentTo() != "" {
		text += "; sent to " + printable(answer.GetSentTo())
	}
	_, err := fmt.Fprintf(a.out, "%s: %s\n  statement %s\n", printable(about), text, answer.GetStatementId())
	return err
}

func (a *app) disputesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "disputes", Short: "Show what became of disputes between this node and others", Args: cobra.NoArgs,
		Long: `Show the disputes that this node sent to the issuers of statements, and the answers that
it sent to those who disputed its own: whether the other server has taken them, and what was answered.
Disputes of others that wait here for an answer are in "tocsin review list".`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.says.ListDisputes(ctx, &pb.ListDisputesRequest{})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, d := range answer.GetDeliveries() {
				state := "on its way"
				switch {
				case d.GetWithdrawn():
					state = "answered: withdrawn"
				case d.GetAnswerId() != "":
					state = "answered: upheld"
				case d.GetTaken() != nil:
					state = "delivered"
				case d.GetGivenUp():
					state = "given up"
				}
				if a.json {
					if err := a.line(struct {
						Statement string  `json:"statement_id"`
						About     string  `json:"about"`
						To        string  `json:"to"`
						Since     *string `json:"since"`
						Taken     *string `json:"taken"`
						State     string  `json:"state"`
						Failures  uint32  `json:"failures"`
						Trouble   string  `json:"trouble"`
						Answer    string  `json:"answer_id"`
					}{d.GetStatementId(), d.GetAbout(), d.GetTo(), stamp(d.GetSince()), stamp(d.GetTaken()), state, d.GetFailures(), d.GetTrouble(), d.GetAnswerId()}); err != nil {
						return err
					}
					continue
				}
				rows = append(rows, []string{or(stamp(d.GetSince()), ""), d.GetAbout(), d.GetTo(), state, d.GetTrouble()})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("nothing was sent to anybody")
				return nil
			}
			return a.table([]string{"SINCE", "ABOUT", "TO", "STATE", "TROUBLE"}, rows)
		})
	}
	return cmd
}
