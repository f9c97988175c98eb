package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tocsin-fed/tocsin/digest"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Digest says when an operator is told what the node did, and how.
type Digest struct {
	Hour, Minute int          // of the day, UTC
	Mail         *digest.Mail // nil for no mail
	Hook         *digest.Hook // nil for no web hook
}

const (
	digestMark  = "digest"
	digestRetry = 15 * time.Minute // after it could not be sent
)

type digestService struct {
	pb.UnimplementedDigestServiceServer
	s *Server

	sending sync.Mutex // held while a digest is made and sent, so that nothing is told twice
}

// collect makes the digest of what is behind the mark, and returns where the audit log ends now.
func (d *digestService) collect(ctx context.Context) (v *digest.Digest, end uint64, err error) {
	s := d.s
	if s.cfg.Audit == nil || s.cfg.Marks == nil {
		return nil, 0, refuse(errState, "this node keeps no audit log, which a digest is made from")
	}
	seq, since, err := s.cfg.Marks.Mark(ctx, digestMark)
	if err != nil {
		return nil, 0, err
	}
	now := time.Now().UTC()
	if since.IsZero() {
		since = now.AddDate(0, 0, -1) // the first of them
	}
	v = &digest.Digest{Node: s.cfg.Origin, Since: since, Until: now}
	end = seq
	for e, err := range s.cfg.Audit.AuditAfter(ctx, seq) {
		if err != nil {
			return nil, 0, err
		}
		end = e.Seq
		if seq == 0 && e.At.Before(since) {
			continue // of before there were digests
		}
		count(v, &e)
	}
	if s.cfg.Reviews != nil {
		waiting, err := s.cfg.Reviews.Reviews(ctx, hashlist.ReviewSelection{States: []hashlist.ReviewState{hashlist.ReviewOpen, hashlist.ReviewProposed}})
		if err != nil {
			return nil, 0, err
		}
		v.Waiting = len(waiting)
		for _, r := range waiting {
			if v.Oldest.IsZero() || r.At.Before(v.Oldest) {
				v.Oldest = r.At
			}
			if r.Kind == hashlist.ReviewHit && r.At.After(since) {
				v.Found++
				v.Add(digest.Item{At: r.At, What: "found", ID: r.ID, Note: r.Summary})
			}
		}
	}
	return v, end, nil
}

// count adds an entry of the audit log to a digest. Of kinds that it does not know it tells nothing.
func count(v *digest.Digest, e *hashlist.AuditEntry) {
	var b struct {
		Verdict string `json:"verdict"`
		Reason  string `json:"reason"`
		Count   int    `json:"count"`
		State   string `json:"state"`
		Does    string `json:"does"`
		Note    string `json:"note"`
		Act     string `json:"act"`
		Agency  string `json:"agency"`
	}
	if json.Unmarshal(e.Body, &b) != nil {
		return
	}
	switch e.Kind {
	case "verdict", "repeats":
		n := max(1, b.Count)
		word := ""
		switch b.Verdict {
		case "reject":
			v.Refused += n
			word = "refused"
		case "hold":
			v.Held += n
			word = "held"
		case "flag":
			v.Flagged += n
		}
		if word != "" && e.Kind == "verdict" {
			v.Add(digest.Item{At: e.At, What: word, ID: e.ID, Note: b.Reason})
		}
	case "act":
		switch b.State {
		case "done":
			v.Acts++
		case "undone":
			v.Undone++
		case "failed", "unsure":
			v.Failed++
		default:
			return
		}
		v.Add(digest.Item{At: e.At, What: b.State, ID: b.Act, Note: b.Does})
	case "revisit":
		v.Changed++
		v.Add(digest.Item{At: e.At, What: b.State, ID: e.ID, Note: b.Note})
	case "report":
		v.Reports++
		v.Add(digest.Item{At: e.At, What: "report", ID: b.Verdict, Note: "to " + b.Agency})
	}
}

// send makes the digest and sends it, and moves the mark if all who are to have it took it.
func (d *digestService) send(ctx context.Context) (sent []string, err error) {
	c := d.s.cfg.Digest
	if c == nil || c.Mail == nil && c.Hook == nil {
		return nil, refuse(errState, "nobody is sent a digest: set digest.mail_server and digest.to, or digest.webhook, in config.toml and start the node again")
	}
	d.sending.Lock()
	defer d.sending.Unlock()
	v, end, err := d.collect(ctx)
	if err != nil {
		return nil, err
	}
	if c.Mail != nil {
		if err := c.Mail.Send(ctx, v); err != nil {
			return nil, refuse(errState, "the digest was not sent: %v", err)
		}
		sent = append(sent, c.Mail.To...)
	}
	if c.Hook != nil {
		if err := c.Hook.Send(ctx, v); err != nil {
			return sent, refuse(errState, "the digest was not sent: %v", err)
		}
		sent = append(sent, "web hook")
	}
	return sent, d.s.cfg.Marks.SaveMark(context.WithoutCancel(ctx), digestMark, end, v.Until.Truncate(time.Microsecond))
}

// run sends a digest every day until ctx ends. One that was due while the node did not run is sent when it
// does; the first is due when there has been a day to tell of.
func (d *digestService) run(ctx context.Context) {
	c := d.s.cfg.Digest
	for {
		now := time.Now()
		due := digest.Due(now, c.Hour, c.Minute)
		_, last, err := d.s.cfg.Marks.Mark(ctx, digestMark)
		switch {
		case err == nil && last.IsZero():
			err = d.s.cfg.Marks.SaveMark(ctx, digestMark, 0, now.UTC().Truncate(time.Microsecond))
		case err == nil && last.Before(due):
			if _, err = d.send(ctx); err == nil {
				d.s.log.Info("sent the digest")
			}
		}
		wait := time.Until(due.AddDate(0, 0, 1))
		if err != nil && ctx.Err() == nil {
			d.s.log.Error("the digest could not be sent; it is tried again", errorText(err), slog.Duration("in", digestRetry))
			wait = digestRetry
		}
		timer := time.NewTimer(max(wait, time.Second))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// GetDigest implements the RPC.
func (d *digestService) GetDigest(ctx context.Context, _ *pb.GetDigestRequest) (*pb.GetDigestResponse, error) {
	v, _, err := d.collect(ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("digest: %w", err)
	}
	return &pb.GetDigestResponse{Text: v.Text(), Json: string(b), Since: when(v.Since)}, nil
}

// SendDigest implements the RPC.
func (d *digestService) SendDigest(ctx context.Context, _ *pb.SendDigestRequest) (*pb.SendDigestResponse, error) {
	sent, err := d.send(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.SendDigestResponse{Sent: sent}, nil
}

// Validate reports the first mistake of d.
func (d *Digest) Validate() error {
	var errs []error
	if d.Hour < 0 || d.Hour > 23 || d.Minute < 0 || d.Minute > 59 {
		errs = append(errs, errors.New("the time of a digest is not of a day"))
	}
	if d.Mail != nil {
		errs = append(errs, d.Mail.Validate())
	}
	if d.Hook != nil {
		errs = append(errs, d.Hook.Validate())
	}
	return errors.Join(errs...)
}
