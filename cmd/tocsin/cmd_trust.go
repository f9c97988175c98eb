package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

func (a *app) trustCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "trust", Short: "Say whom this node believes, and see why anybody is believed", Args: cobra.NoArgs,
		Long: `Say how far other admins are believed, and see how far anybody is and why.

What others list acts here as far as they are believed: because you follow the list
(follow --most), or because you, or somebody you vouch for, vouches for who wrote it.
120 is full belief; three who are believed 40 are together believed fully. However
many issuers somebody invents, all of them together are believed no more than the
one through whom they are known.`,
	}
	cmd.AddCommand(a.trustAddCommand(), a.trustRemoveCommand(), a.trustListCommand(), a.trustShowCommand(), a.trustFingerprintCommand(), a.trustVerifyCommand())
	return cmd
}

// parseAmount reads how far somebody is believed.
func parseAmount(s string) (uint32, error) {
	switch s {
	case "full":
		return hashlist.MostBelief, nil
	case "partial":
		return hashlist.PartialBelief, nil
	case "marginal":
		return hashlist.MarginalBelief, nil
	}
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n < 1 || n > hashlist.MostBelief {
		return 0, fmt.Errorf("amount %.40q is not full, partial, marginal or 1 to %d", s, hashlist.MostBelief)
	}
	return uint32(n), nil
}

func (a *app) trustAddCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "add ISSUER", Short: "Say how far an issuer is believed", Args: cobra.ExactArgs(1),
		Long: `Say, in a signed statement, how far another issuer is believed: @NAME@HOST, or the
address of their actor. It takes the place of what you said about them for the same
labels before.

--amount is full (120), partial (80), marginal (40) or a number. With --depth 1
those are believed too for whom they vouch, with 2 also those for whom these do; the
node then follows their public list of whom they believe by itself.

By default nobody else learns of it. With --public anybody may read it, with
--followers those whom you approve as followers of list "trust".

Their keys are fetched and pinned. Compare the fingerprint over the telephone and
say so with "tocsin trust verify": until then you take their server's word for it.

If lists of theirs are followed already, you are told first what these would have
refused of what was uploaded lately if they acted and were believed. Where that is more than
expected, nothing is said without --yes.

With --draft nothing is said: the statements are printed as they are to be signed
with "tocsin sign", where the issuer's key is kept elsewhere.`,
		Example: `  tocsin trust add @alice@hashes.example --label csam --amount full --depth 1
  tocsin trust add @bob@other.example --label spam --amount marginal --until 2027-12-31`,
	}
	f := cmd.Flags()
	names := f.StringSlice("label", nil, "what it holds for; may be repeated (default: everything)")
	amount := f.String("amount", "marginal", "full, partial, marginal or 1 to 120")
	depth := f.Uint32("depth", 0, "how far their word on others counts: 0 for not at all, at most "+strconv.Itoa(hashlist.MaxDepth))
	until := f.String("until", "", `when it ends: a time such as "30d" or a date such as 2030-12-31 (default: never)`)
	from := f.String("from", "", "when it begins, in the same form (default: now)")
	public := f.Bool("public", false, "anybody may read it")
	followers := f.Bool("followers", false, "approved followers of list trust may read it")
	f.Bool("private", false, "nobody else may read it (the default)")
	reason := f.String("reason", "", "why, for people")
	yes := f.Bool("yes", false, "also if their lists would have refused more than expected")
	draft := f.Bool("draft", false, draftUsage)
	cmd.MarkFlagsMutuallyExclusive("public", "followers", "private")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		also, err := checkedLabels(*names)
		if err != nil {
			return a.usage("%w", err)
		}
		m := &pb.Vouching{Object: args[0], Labels: also, Depth: *depth, Reason: *reason}
		if m.Amount, err = parseAmount(*amount); err != nil {
			return a.usage("%w", err)
		}
		if *depth > hashlist.MaxDepth {
			return a.usage("depth %d is more than %d", *depth, hashlist.MaxDepth)
		}
		now := time.Now()
		if m.Until, err = parseExpiry(*until, now); err != nil {
			return a.usage("until: %w", err)
		}
		if m.From, err = parseExpiry(*from, now); err != nil {
			return a.usage("from: %w", err)
		}
		r := &pb.VouchRequest{Vouching: m, Draft: *draft, Audience: pb.Audience_AUDIENCE_LOCAL}
		if *public {
			r.Audience = pb.Audience_AUDIENCE_PUBLIC
		} else if *followers {
			r.Audience = pb.Audience_AUDIENCE_FOLLOWERS
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			suspicious, err := a.foresee(ctx, n, m)
			if err != nil && !*yes {
				return err
			}
			before := believed(ctx, n, args[0], also)
			answer, err := n.trust().Vouch(ctx, r)
			if err != nil {
				return err
			}
			if *yes && !*draft {
				for _, list := range suspicious {
					if err := letAct(ctx, n, list, "vouched for with --yes"); err != nil {
						return err
					}
				}
			}
			if *draft {
				return a.drafted(answer.GetDrafts()...)
			}
			l := describeVouching(answer.GetVouching())
			if a.json {
				return a.line(l)
			}
			text := "vouched: " + l.text()
			if len(answer.GetReplaced()) > 0 {
				text += "\nIt takes the place of what was said before."
			}
			text += changed(before, believed(ctx, n, l.Object, also))
			for _, k := range answer.GetKeys() {
				if k.GetExpires() == nil && k.GetState() != pb.KeyState_KEY_STATE_VERIFIED {
					text += "\nTheir key is " + word(k.GetState()) + ", not verified. Fingerprint: " + k.GetFingerprint() +
						"\nAsk them for it over the telephone, then: tocsin trust verify " + handle(l.Object) + " FINGERPRINT"
				}
			}
			_, err = fmt.Fprintln(a.out, text)
			return err
		})
	}
	return cmd
}

// foresee tells what the lists of an issuer that are followed would have done to the uploads of the
// recent window if they acted. It fails, and returns the lists, if that is more than expected.
func (a *app) foresee(ctx context.Context, n *node, m *pb.Vouching) (suspicious []string, err error) {
	answer, err := n.trust().GetIssuer(ctx, &pb.GetIssuerRequest{Issuer: m.GetObject(), Labels: m.GetLabels()})
	if err != nil {
		return nil, nil // whoever is not known lists nothing here
	}
	most := pb.Verdict_VERDICT_FLAG
	if m.GetAmount() >= hashlist.MostBelief {
		most = pb.Verdict_VERDICT_REJECT
	} else if m.GetAmount() >= hashlist.PartialBelief {
		most = pb.Verdict_VERDICT_HOLD
	}
	for _, list := range answer.GetLists() {
		p, err := n.window.Preview(ctx, &pb.PreviewRequest{List: list, Most: most})
		if err != nil {
			continue // no window is kept, or nothing of the list has come
		}
		a.warn("believed like that, list %s would have refused %d of the last %d uploads, held %d and flagged %d",
			handle(list), p.GetRejected(), p.GetUploads(), p.GetHeld(), p.GetFlagged())
		if p.GetSuspicious() {
			suspicious = append(suspicious, list)
		}
	}
	if len(suspicious) > 0 {
		err = fmt.Errorf("that is more than is expected: look at `tocsin window preview %s`, and add --yes if it is right", handle(suspicious[0]))
	}
	return suspicious, err
}

// believed is how far an issuer is believed about labels, or about all that anybody vouches for; empty
// if nobody knows them.
func believed(ctx context.Context, n *node, issuer string, labels []string) map[string]uint32 {
	answer, err := n.trust().GetIssuer(ctx, &pb.GetIssuerRequest{Issuer: issuer, Labels: labels})
	if err != nil {
		return nil
	}
	amounts := map[string]uint32{}
	for _, b := range answer.GetBeliefs() {
		amounts[b.GetLabel()] = b.GetAmount()
	}
	return amounts
}

// changed tells how far somebody was believed and is now, a line for each label.
func changed(before, after map[string]uint32) (text string) {
	all := maps.Clone(before)
	if all == nil {
		all = map[string]uint32{}
	}
	maps.Copy(all, after)
	for _, label := range slices.Sorted(maps.Keys(all)) {
		about := label
		if label == "" {
			about = "what has no label"
		}
		text += fmt.Sprintf("\nbelief about %s: %d -> %d of %d", about, before[label], after[label], hashlist.MostBelief)
	}
	return text
}

type vouchingLine struct {
	Issuer    string   `json:"issuer"`
	Object    string   `json:"object"`
	Labels    []string `json:"labels"`
	Amount    uint32   `json:"amount"`
	Depth     uint32   `json:"depth"`
	From      *string  `json:"from"`
	Until     *string  `json:"until"`
	Reason    string   `json:"reason"`
	Statement string   `json:"statement_id"`
	List      string   `json:"list"`
	Published *string  `json:"published"`
}

func describeVouching(v *pb.Vouching) vouchingLine {
	return vouchingLine{
		v.GetIssuer(), v.GetObject(), some(v.GetLabels()), v.GetAmount(), v.GetDepth(), stamp(v.GetFrom()), stamp(v.GetUntil()), v.GetReason(),
		v.GetStatementId(), v.GetList(), stamp(v.GetPublished()),
	}
}

func (l *vouchingLine) text() string {
	about := "everything"
	if len(l.Labels) > 0 {
		about = strings.Join(l.Labels, ", ")
	}
	text := fmt.Sprintf("%s is believed %d of %d about %s", handle(l.Object), l.Amount, hashlist.MostBelief, about)
	switch l.Depth {
	case 0:
	case 1:
		text += ", and so are those for whom they vouch"
	default:
		text += fmt.Sprintf(", and so are those for whom they vouch, over %d steps", l.Depth)
	}
	if l.From != nil && l.Published != nil && *l.From > *l.Published {
		text += ", from " + *l.From
	}
	if l.Until != nil {
		text += ", until " + *l.Until
	}
	return text
}

func (a *app) trustRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "remove ISSUER", Short: "Take back what was said about an issuer", Args: cobra.ExactArgs(1),
		Long: `Take back all that this node said about an issuer, or with --label only what it said
for just these labels.`,
	}
	names := cmd.Flags().StringSlice("label", nil, "only what was said for just these labels; may be repeated")
	reason := cmd.Flags().String("reason", "", "why, for people")
	draft := cmd.Flags().Bool("draft", false, draftUsage)
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		only, err := checkedLabels(*names)
		if err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			before := believed(ctx, n, args[0], only)
			answer, err := n.trust().Unvouch(ctx, &pb.UnvouchRequest{Object: args[0], Labels: only, Reason: *reason, Draft: *draft})
			if err != nil {
				return err
			}
			if *draft {
				return a.drafted(answer.GetDrafts()...)
			}
			for _, v := range answer.GetWithdrawn() {
				l := describeVouching(v)
				if a.json {
					err = a.line(l)
				} else {
					_, err = fmt.Fprintln(a.out, "taken back: "+l.text())
				}
				if err != nil {
					return err
				}
			}
			if !a.json {
				_, err = fmt.Fprintln(a.out, strings.TrimPrefix(changed(before, believed(ctx, n, args[0], only)), "\n"))
			}
			return err
		})
	}
	return cmd
}

func (a *app) trustListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "Show who vouches for whom", Args: cobra.NoArgs,
		Long: `Show who vouches for whom, as far as this node knows: what it says itself, and what
others say on lists that it follows.`,
	}
	by := cmd.Flags().String("by", "", "only what this issuer says")
	of := cmd.Flags().String("of", "", "only what is said about this issuer")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.trust().ListVouchings(ctx, &pb.ListVouchingsRequest{Issuer: *by, Object: *of})
			if err != nil {
				return err
			}
			var rows [][]string
			for _, v := range answer.GetVouchings() {
				l := describeVouching(v)
				if a.json {
					if err := a.line(l); err != nil {
						return err
					}
					continue
				}
				about := strings.Join(l.Labels, ",")
				if about == "" {
					about = "everything"
				}
				rows = append(rows, []string{handle(l.Issuer), handle(l.Object), about, fmt.Sprint(l.Amount), fmt.Sprint(l.Depth), or(l.Until, "never"), l.Reason})
			}
			switch {
			case a.json:
				return nil
			case len(rows) == 0:
				a.warn("nobody vouches for anybody here; `tocsin trust add @NAME@HOST` does")
				return nil
			}
			return a.table([]string{"BY", "FOR", "ABOUT", "AMOUNT", "DEPTH", "UNTIL", "REASON"}, rows)
		})
	}
	return cmd
}

type issuerKeyLine struct {
	Key         string  `json:"key"`
	Fingerprint string  `json:"fingerprint"`
	State       string  `json:"state"`
	Seen        *string `json:"seen"`
	Expires     *string `json:"expires"`
	Revoked     *string `json:"revoked"`
	Verified    *string `json:"verified"`
	VerifiedBy  string  `json:"verified_by"`
}

func describeIssuerKey(k *pb.IssuerKey) issuerKeyLine {
	return issuerKeyLine{
		k.GetKey(), k.GetFingerprint(), word(k.GetState()), stamp(k.GetSeen()), stamp(k.GetExpires()), stamp(k.GetRevoked()),
		stamp(k.GetVerified()), k.GetVerifiedBy(),
	}
}

func (l *issuerKeyLine) text() string {
	text := l.Fingerprint + "  " + l.State
	if l.Verified != nil {
		text += " by " + l.VerifiedBy + " at " + *l.Verified
	}
	if l.Expires != nil {
		text += ", replaced at " + *l.Expires
	}
	if l.Revoked != nil {
		text += ", in other hands since " + *l.Revoked
	}
	if l.State == "doubted" {
		text += " !!! what it signs waits until you have compared it"
	}
	return text
}

func (a *app) trustShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show ISSUER", Short: "Show how far an issuer is believed, and why", Args: cobra.ExactArgs(1),
		Long: `Show how far an issuer is believed about each label and over whom that comes, what
their keys are, and which lists of theirs are followed. Of each vouching on the way
it tells how much of its amount is used.

What following a list adds to it for what stands on that list ("tocsin follows") is not counted.`,
	}
	names := cmd.Flags().StringSlice("label", nil, "only for this label; may be repeated")
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		only, err := checkedLabels(*names)
		if err != nil {
			return a.usage("%w", err)
		}
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.trust().GetIssuer(ctx, &pb.GetIssuerRequest{Issuer: args[0], Labels: only})
			if err != nil {
				return err
			}
			return a.printIssuer(answer)
		})
	}
	return cmd
}

func (a *app) printIssuer(answer *pb.GetIssuerResponse) error {
	type edge struct {
		From      string `json:"from"`
		To        string `json:"to"`
		Statement string `json:"statement_id"`
		Amount    uint32 `json:"amount"`
		Depth     uint32 `json:"depth"`
		Used      uint32 `json:"used"`
	}
	type path struct {
		Amount uint32 `json:"amount"`
		Edges  []edge `json:"edges"`
	}
	type belief struct {
		Label  string `json:"label"`
		Amount uint32 `json:"amount"`
		Paths  []path `json:"paths"`
	}
	v := struct {
		Issuer  string          `json:"issuer"`
		Beliefs []belief        `json:"beliefs"`
		Keys    []issuerKeyLine `json:"keys"`
		Lists   []string        `json:"lists"`
	}{answer.GetIssuer(), []belief{}, []issuerKeyLine{}, some(answer.GetLists())}
	text := v.Issuer + "\n"
	for _, b := range answer.GetBeliefs() {
		line := belief{b.GetLabel(), b.GetAmount(), []path{}}
		about := "what has no label"
		if b.GetLabel() != "" {
			about = b.GetLabel()
		}
		text += fmt.Sprintf("believed %d of %d about %s\n", b.GetAmount(), hashlist.MostBelief, about)
		for _, p := range b.GetPaths() {
			way := path{p.GetAmount(), []edge{}}
			text += fmt.Sprintf("  %d over", p.GetAmount())
			if len(p.GetEdges()) == 0 {
				text += " itself: it is an issuer of this node"
			}
			for i, e := range p.GetEdges() {
				if i == 0 {
					text += " " + handle(e.GetFrom())
				}
				text += fmt.Sprintf(" -> %s (%d of %d used, depth %d)", handle(e.GetTo()), e.GetUsed(), e.GetAmount(), e.GetDepth())
				way.Edges = append(way.Edges, edge{e.GetFrom(), e.GetTo(), e.GetStatementId(), e.GetAmount(), e.GetDepth(), e.GetUsed()})
			}
			text += "\n"
			line.Paths = append(line.Paths, way)
		}
		v.Beliefs = append(v.Beliefs, line)
	}
	for _, k := range answer.GetKeys() {
		l := describeIssuerKey(k)
		text += "key " + l.text() + "\n"
		v.Keys = append(v.Keys, l)
	}
	if len(v.Keys) == 0 {
		text += "this node has not met them: no key is known\n"
	}
	for _, l := range v.Lists {
		text += "follows " + handle(l) + "\n"
	}
	if a.json {
		return a.line(v)
	}
	_, err := fmt.Fprint(a.out, text)
	return err
}

func (a *app) trustFingerprintCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "fingerprint [ISSUER]", Short: "Print the fingerprint to read to another admin", Args: cobra.MaximumNArgs(1),
		Long: `Print the fingerprint of the key of this node's issuer, which you read to another
admin over the telephone, or of the keys in use of another issuer. It is not secret,
but whoever can alter what you send could alter it too: so do not send it the way
you send all else.`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.trust().GetIssuer(ctx, &pb.GetIssuerRequest{Issuer: strings.Join(args, ""), Labels: []string{"x"}})
			if err != nil {
				return err
			}
			for _, k := range answer.GetKeys() {
				if k.GetExpires() != nil {
					continue
				}
				l := describeIssuerKey(k)
				if a.json {
					err = a.line(l)
				} else {
					_, err = fmt.Fprintf(a.out, "%s  %s\n", l.Fingerprint, answer.GetIssuer())
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return cmd
}

func (a *app) trustVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify ISSUER FINGERPRINT", Short: "Compare the fingerprint of an issuer's key with what they read to you", Args: cobra.MinimumNArgs(2),
		Long: `Compare what another admin reads to you ("tocsin trust fingerprint" on their node),
eight groups of five digits, with the keys that this node knows of them. If one
has it, it is marked as verified, and what waited for that is taken over.

When an issuer's key changes and the key before has not signed for the new one,
nothing that the new one signs acts here until you have done this.`,
		Example: `  tocsin trust verify @alice@hashes.example 30475 91823 57120 66418 02937 11846 95520 74013`,
	}
	c := a.client(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.call(cmd, func(ctx context.Context, n *node) error {
			answer, err := n.trust().VerifyKey(ctx, &pb.VerifyKeyRequest{Issuer: args[0], Fingerprint: strings.Join(args[1:], " ")})
			if err != nil {
				return err
			}
			l := describeIssuerKey(answer.GetKey())
			if a.json {
				return a.line(l)
			}
			_, err = fmt.Fprintf(a.out, "verified: this key is %s's\n  %s\n", handle(answer.GetIssuer()), l.Key)
			return err
		})
	}
	return cmd
}

func (n *node) trust() pb.TrustServiceClient { return pb.NewTrustServiceClient(n) }
