package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

type adminService struct {
	pb.UnimplementedAdminServiceServer
	s *Server
}

func tokenMessage(t *Token) *pb.Token {
	v := &pb.Token{Name: t.Name, Scope: string(t.Scope), Created: timestamppb.New(t.Created)}
	if !t.Expires.IsZero() {
		v.Expires = timestamppb.New(t.Expires)
	}
	return v
}

// CreateToken implements the RPC.
func (a *adminService) CreateToken(ctx context.Context, r *pb.CreateTokenRequest) (*pb.CreateTokenResponse, error) {
	var expires time.Time
	if t := r.GetToken().GetExpires(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, refuse(errInvalid, "expires: not a time")
		}
		expires = t.AsTime().UTC().Truncate(time.Second)
	}
	t, secret, err := a.s.keys.create(ctx, r.GetToken().GetName(), Scope(r.GetToken().GetScope()), expires)
	if err != nil {
		return nil, err
	}
	return &pb.CreateTokenResponse{Token: tokenMessage(&t), Secret: secret}, nil
}

// ListTokens implements the RPC.
func (a *adminService) ListTokens(context.Context, *pb.ListTokensRequest) (*pb.ListTokensResponse, error) {
	v := &pb.ListTokensResponse{}
	for _, t := range a.s.keys.all() {
		v.Tokens = append(v.Tokens, tokenMessage(&t))
	}
	return v, nil
}

// RevokeToken implements the RPC.
func (a *adminService) RevokeToken(ctx context.Context, r *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	if err := hashlist.CheckName(r.GetName()); err != nil {
		return nil, invalid("name of the token", err)
	}
	if err := a.s.keys.revoke(ctx, r.GetName()); err != nil {
		return nil, err
	}
	return &pb.RevokeTokenResponse{}, nil
}

// GetStatus implements the RPC.
func (a *adminService) GetStatus(ctx context.Context, _ *pb.GetStatusRequest) (*pb.GetStatusResponse, error) {
	s := a.s
	counts := s.cfg.Lists.Counts()
	v := &pb.GetStatusResponse{
		Version: s.cfg.Version, Origin: s.cfg.Origin, Issuer: s.cfg.Issuer.Actor(), IndexSeq: s.cfg.Lists.Seq(),
		Hashes: map[string]uint64{}, Statements: s.cfg.Lists.Seq(), // places in the log have no gaps
		Started: timestamppb.New(s.started), LoadMilliseconds: uint64(s.cfg.Loaded.Milliseconds()),
		Federation: s.PublicAddr(), Offline: s.cfg.Offline != nil && s.cfg.Offline(), Warnings: append(s.warnings(), s.reviewWarnings(ctx)...),
	}
	for alg, n := range counts.Hashes {
		v.Hashes[alg.String()] = uint64(n)
	}
	return v, nil
}

// warnings are what the operator should know or do.
func (s *Server) warnings() []string {
	all := append(slices.Clone(s.cfg.Warnings), s.keyWarnings()...)
	if s.cfg.Federation == nil {
		return all
	}
	for _, f := range s.cfg.Federation.Follows() {
		if f.State == federation.FollowDiverged {
			all = append(all, fmt.Sprintf("list %s showed two histories that contradict each other, so nothing more of it is taken over: ask its publisher; `tocsin verify %[1]s` tells more", f.List))
		}
	}
	// It fails only for a list that is not there.
	followers, _ := s.cfg.Federation.Followers("")
	waiting := 0
	for _, f := range followers {
		if f.State == federation.FollowerAsked {
			waiting++
		}
	}
	if waiting > 0 {
		all = append(all, fmt.Sprintf("%d wait to be approved as followers: `tocsin followers` shows them", waiting))
	}
	return all
}

// Backup implements the RPC. The copy is made beside the database, where there
// is as much room as it needs and nobody else may look, and sent from there.
func (a *adminService) Backup(_ *pb.BackupRequest, stream pb.AdminService_BackupServer) (err error) {
	s := a.s
	if s.cfg.Backup == nil {
		return refuse(errState, "this node's store cannot be copied through it")
	}
	if !s.backingUp.TryLock() {
		return refuse(errState, "another backup is running: try again when it is done")
	}
	defer s.backingUp.Unlock()
	dir, err := os.MkdirTemp(s.cfg.Scratch, "backup-")
	if err != nil {
		return fmt.Errorf("make room for the backup: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "copy.db")
	if err := s.cfg.Backup(stream.Context(), path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the backup: %w", err)
	}
	for chunk := make([]byte, maxChunk); ; {
		n, err := f.Read(chunk)
		if n > 0 {
			if err := stream.Send(&pb.BackupResponse{Chunk: chunk[:n], Size: uint64(info.Size())}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
	}
}
