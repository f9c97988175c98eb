package server

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// Appeal implements the RPC. What comes is a stranger's words, through a platform that
// cannot vouch for them: they are bounded, shown to people as what they are, never logged, and
// nothing follows from them by itself.
func (v *reviewService) Appeal(ctx context.Context, r *pb.AppealRequest) (*pb.AppealResponse, error) {
	s := v.s
	if _, err := s.reviews(); err != nil {
		return nil, err
	}
	ref := hashlist.Reference{URL: r.GetUrl(), Alias: r.GetAlias(), Post: r.GetPost(), Actor: r.GetActor()}
	if err := ref.Validate(); err != nil {
		return nil, invalid("reference", err)
	}
	switch {
	case r.GetVerdictId() == "" && ref.URL == "" && ref.Alias == "" && ref.Post == "":
		return nil, refuse(errInvalid, "it is not said what this is about: give verdict_id, url, alias or post")
	case len(r.GetVerdictId()) > hashlist.MaxName || r.GetVerdictId() != "" && hashlist.CheckName(r.GetVerdictId()) != nil:
		return nil, refuse(errInvalid, "verdict_id is not one that this node gave")
	case len(r.GetText()) > hashlist.MaxReason:
		return nil, refuse(errInvalid, "a text of %d bytes is longer than %d", len(r.GetText()), hashlist.MaxReason)
	}
	item := hashlist.Review{
		ID: reviewID(hashlist.ReviewAppeal, r.GetVerdictId(), ref.URL, ref.Alias, ref.Post), Kind: hashlist.ReviewAppeal, Verdict: r.GetVerdictId(), Reference: ref,
		Summary: boundedText("Somebody objects, in their words: "+r.GetText(), hashlist.MaxReason),
	}
	if err := s.recall(ctx, &item); err != nil {
		return nil, err
	}
	added, err := s.addReview(ctx, item)
	if errors.Is(err, hashlist.ErrReviewsFull) {
		return nil, refuse(errLimit, "too many appeals wait already: try again later")
	} else if err != nil {
		return nil, err
	}
	return &pb.AppealResponse{Id: item.ID, Known: !added}, nil
}

// granted are the decisions that are in favour of whoever objected.
var granted = []hashlist.ReviewChoice{hashlist.ChooseAllow, hashlist.ChooseIgnore, hashlist.ChooseDispute, hashlist.ChooseRelease}

// GetAppeal implements the RPC.
func (v *reviewService) GetAppeal(ctx context.Context, r *pb.GetAppealRequest) (*pb.GetAppealResponse, error) {
	found, err := v.s.findReview(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	if found.Kind != hashlist.ReviewAppeal { // this may be asked with a token that may not see the rest
		return nil, refuse(errUnknown, "there is no appeal %.*s", hashlist.MaxReviewID, r.GetId())
	}
	answer := &pb.GetAppealResponse{State: pb.ReviewState(found.State)}
	if n := len(found.Decisions); found.State == hashlist.ReviewDecided && n > 0 {
		answer.Granted = slices.Contains(granted, found.Decisions[n-1].What)
		answer.Decided = timestamppb.New(found.Decisions[n-1].When)
	}
	return answer, nil
}
