package server

import (
	"bytes"
	"context"
	"image"
	"image/draw"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// flip turns some bits of a PDQ hash.
func flip(t testing.TB, h hashlist.Hash, bits int) hashlist.Hash {
	t.Helper()
	sum := h.Sum()
	for i := range bits {
		sum[i/8] ^= 1 << (i % 8)
	}
	v, err := hashlist.NewHash(h.Algorithm(), sum)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLookup(t *testing.T) {
	n := start(t)
	h := randomHashes(2)
	banned := n.ban("gore", h[0])
	n.newList("empty")
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	v, err := c.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h[1].String(), flip(t, h[0], 31).String()}})
	if err != nil {
		t.Fatal(err)
	}
	if len(v.GetMatches()) != 1 || v.GetVerdict() != pb.Verdict_VERDICT_REJECT || v.GetIndexSeq() != n.lists.Seq() {
		t.Fatalf("answer: %v", v)
	}
	got := v.GetMatches()[0]
	if got.GetPublished() == nil {
		t.Error("no time of the statement")
	}
	got.Published = nil
	want := &pb.Match{
		List: "gore", ListId: testOrigin + "/lists/gore", Labels: []string{"gore"}, Algorithm: "pdq", Distance: 31,
		SimilarityPercent: 87.8, Issuer: n.issuer.Actor(), StatementId: banned.GetStatementId(),
		Action: pb.Action_ACTION_REJECT, QueryIndex: 1, Reason: "banned in a test",
	}
	if !proto.Equal(got, want) {
		t.Errorf("match\n%v, want\n%v", got, want)
	}
	for _, p := range n.secrets {
		if strings.Contains(v.GetReason(), p) {
			t.Error("the reason holds a hash")
		}
	}
	v, err = c.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h[0].Complement().String()}})
	if err != nil || len(v.GetMatches()) != 1 || v.GetMatches()[0].GetTransform() != "inverted" || v.GetMatches()[0].GetDistance() != 0 {
		t.Errorf("complement: %v, %v", v, err)
	}
	for _, lists := range [][]string{{"gore"}, {testOrigin + "/lists/gore"}, {"empty", "gore"}} {
		v, err = c.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h[0].String()}, Lists: lists})
		if err != nil || len(v.GetMatches()) != 1 {
			t.Errorf("on lists %v: %v, %v", lists, v, err)
		}
	}
	v, err = c.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h[0].String()}, Lists: []string{"empty"}})
	if err != nil || len(v.GetMatches()) != 0 || v.GetVerdict() != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("on an empty list: %v, %v", v, err)
	}
}

func TestLookupRefuses(t *testing.T) {
	n := start(t)
	n.newList("gore")
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	one := randomHashes(1)[0].String()
	many := func(k int) []string { return slices.Repeat([]string{one}, k) }
	for _, r := range []struct {
		name string
		req  *pb.LookupRequest
		want codes.Code
	}{
		{"most hashes", &pb.LookupRequest{Hashes: many(256), Limit: 1000}, codes.OK},
		{"no hashes", &pb.LookupRequest{}, codes.InvalidArgument},
		{"too many hashes", &pb.LookupRequest{Hashes: many(257)}, codes.InvalidArgument},
		{"capitals", &pb.LookupRequest{Hashes: []string{"pdq:" + strings.ToUpper(one[4:])}}, codes.InvalidArgument},
		{"bare hash", &pb.LookupRequest{Hashes: []string{one[4:]}}, codes.InvalidArgument},
		{"unknown algorithm", &pb.LookupRequest{Hashes: []string{"crc32:00000000"}}, codes.InvalidArgument},
		{"all-zero hash", &pb.LookupRequest{Hashes: []string{"pdq:" + strings.Repeat("0", 64)}}, codes.InvalidArgument},
		{"a second hash that is wrong", &pb.LookupRequest{Hashes: []string{one, "x"}}, codes.InvalidArgument},
		{"limit", &pb.LookupRequest{Hashes: many(1), Limit: 1001}, codes.InvalidArgument},
		{"unknown list", &pb.LookupRequest{Hashes: many(1), Lists: []string{"other"}}, codes.NotFound},
		{"a list that is a path", &pb.LookupRequest{Hashes: many(1), Lists: []string{"../gore"}}, codes.InvalidArgument},
		{"a list of too long a name", &pb.LookupRequest{Hashes: many(1), Lists: []string{strings.Repeat("a", 1000)}}, codes.InvalidArgument},
		{"too many lists", &pb.LookupRequest{Hashes: many(1), Lists: slices.Repeat([]string{"gore"}, 65)}, codes.InvalidArgument},
		{"a message too large", &pb.LookupRequest{Hashes: []string{strings.Repeat("x", 5<<20)}}, codes.ResourceExhausted},
	} {
		_, err := c.Lookup(t.Context(), r.req)
		wantCode(t, r.name, err, r.want)
	}
}

// TestAnswersFit shows that an answer stays within what callers take, however
// much there is to say, and that the verdict does not depend on it.
func TestAnswersFit(t *testing.T) {
	n := start(t)
	lists := n.newList("long")
	h := randomHashes(1)[0]
	n.secrets = append(n.secrets, h.Hex())
	base := h.Sum()
	reason := strings.Repeat("r", hashlist.MaxReason)
	for i := range 1800 {
		sum := slices.Clone(base)
		sum[i/120] ^= byte(1 + i%120)
		near, _ := hashlist.NewHash(hashlist.PDQ, sum)
		if _, err := lists.Submit(t.Context(), &pb.SubmitRequest{List: "long", Hashes: []string{near.String()}, Reason: reason}); err != nil {
			t.Fatal(err)
		}
	}
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	v, err := c.Lookup(t.Context(), &pb.LookupRequest{Hashes: []string{h.String()}, Limit: 1000})
	if err != nil || !v.GetTruncated() || len(v.GetMatches()) < 500 || v.GetVerdict() != pb.Verdict_VERDICT_REJECT {
		t.Errorf("%d matches, truncated %v, %v", len(v.GetMatches()), v.GetTruncated(), err)
	}
	stream, err := c.LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := &pb.LookupStreamRequest{Lookups: slices.Repeat([]*pb.LookupRequest{{Hashes: []string{h.String()}}}, 100)}
	if err := stream.Send(all); err != nil {
		t.Fatal(err)
	}
	a, err := stream.Recv()
	if err != nil || len(a.GetLookups()) != 100 {
		t.Fatalf("stream: %d answers, %v", len(a.GetLookups()), err)
	}
	last := a.GetLookups()[99]
	if last.GetVerdict() != pb.Verdict_VERDICT_REJECT || !last.GetTruncated() {
		t.Errorf("the last answer: verdict %v, truncated %v", last.GetVerdict(), last.GetTruncated())
	}
}

// TestLookupStream sends a thousand messages before it reads the first answer.
func TestLookupStream(t *testing.T) {
	n := start(t)
	h := randomHashes(4)
	n.ban("gore", h[0])
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	stream, err := c.LookupStream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const messages = 1000
	for i := range messages {
		r := &pb.LookupStreamRequest{Tag: uint64(i)}
		for j := range 1 + i%3 {
			r.Lookups = append(r.Lookups, &pb.LookupRequest{Hashes: []string{h[(i+j)%4].String()}})
		}
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	stream.CloseSend()
	for i := range messages {
		a, err := stream.Recv()
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if a.GetTag() != uint64(i) || len(a.GetLookups()) != 1+i%3 {
			t.Fatalf("answer %d has tag %d and %d lookups", i, a.GetTag(), len(a.GetLookups()))
		}
		for j, l := range a.GetLookups() {
			if found := len(l.GetMatches()) == 1; found != ((i+j)%4 == 0) || l.GetIndexSeq() == 0 {
				t.Errorf("answer %d.%d: %v", i, j, l)
			}
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("after the last answer: %v", err)
	}
}

// TestLookupStreamErrors shows that what comes before a bad message is answered.
func TestLookupStreamErrors(t *testing.T) {
	n := start(t)
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	hasty := start(t, func(c *Config) { c.Limit.Idle = 20 * time.Millisecond })
	good := &pb.LookupRequest{Hashes: texts(randomHashes(1))}
	for _, r := range []struct {
		name string
		bad  *pb.LookupStreamRequest
		want codes.Code
	}{
		{"bad hash", &pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{good, {Hashes: []string{"x"}}}}, codes.InvalidArgument},
		{"unknown list", &pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{{Hashes: good.Hashes, Lists: []string{"no"}}}}, codes.NotFound},
		{"too many", &pb.LookupStreamRequest{Lookups: slices.Repeat([]*pb.LookupRequest{good}, 1025)}, codes.InvalidArgument},
		{"too large", &pb.LookupStreamRequest{Lookups: []*pb.LookupRequest{{Hashes: []string{strings.Repeat("x", 5<<20)}}}}, codes.ResourceExhausted},
		{"silence", nil, codes.DeadlineExceeded},
	} {
		c := c
		if r.bad == nil {
			c = pb.NewLookupServiceClient(hasty.owner())
		}
		stream, err := c.LookupStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.LookupStreamRequest{Tag: 7, Lookups: []*pb.LookupRequest{good}}); err != nil {
			t.Fatal(err)
		}
		if r.bad != nil {
			stream.Send(r.bad)
		}
		// A message that gRPC itself refuses ends the stream there and then, and may
		// overtake the answer before it.
		a, err := stream.Recv()
		if r.name != "too large" && (err != nil || a.GetTag() != 7) {
			t.Errorf("%s: first answer %v, %v", r.name, a, err)
		}
		if err == nil {
			_, err = stream.Recv()
		}
		wantCode(t, r.name, err, r.want)
	}
}

func sendMedia(ctx context.Context, c pb.LookupServiceClient, file []byte, o *pb.LookupMediaOptions, chunk int) (*pb.LookupMediaResponse, error) {
	stream, err := c.LookupMedia(ctx)
	if err != nil {
		return nil, err
	}
	for first := true; first || len(file) > 0; first = false {
		r := &pb.LookupMediaRequest{Chunk: file[:min(chunk, len(file))]}
		file = file[len(r.Chunk):]
		if first {
			r.Options = o
		}
		if stream.Send(r) != nil {
			break // the answer tells why
		}
	}
	return stream.CloseAndRecv()
}

func TestLookupMedia(t *testing.T) {
	n := start(t)
	file := encodeJPEG(t, photo(1, 640, 480), 90)
	m := n.media(file)
	if m.Frames[0].Quality < 50 {
		t.Fatalf("the test's picture has quality %d", m.Frames[0].Quality)
	}
	n.ban("gore", m.Frames[0].PDQ[0])
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))

	mirrored := image.NewRGBA(image.Rect(0, 0, 640, 480))
	inverted := image.NewRGBA(mirrored.Rect)
	src := photo(1, 640, 480)
	draw.Draw(mirrored, mirrored.Rect, src, image.Point{}, draw.Src)
	draw.Draw(inverted, inverted.Rect, src, image.Point{}, draw.Src)
	for y := range 480 {
		row := mirrored.Pix[y*mirrored.Stride:]
		for x := range 320 {
			for k := range 4 {
				row[4*x+k], row[4*(639-x)+k] = row[4*(639-x)+k], row[4*x+k]
			}
		}
	}
	for i := range inverted.Pix {
		if i%4 != 3 {
			inverted.Pix[i] = ^inverted.Pix[i]
		}
	}
	for _, v := range []struct {
		name      string
		file      []byte
		transform string
	}{
		{"the file itself", file, "original"},
		{"encoded again", encodeJPEG(t, src, 40), "original"},
		{"resized", encodeJPEG(t, photo(1, 320, 240), 90), "original"},
		{"mirrored", encodeJPEG(t, mirrored, 90), "flipy"},
		{"inverted", encodeJPEG(t, inverted, 90), "inverted-original"},
		{"another picture", encodeJPEG(t, photo(2, 640, 480), 90), ""},
	} {
		a, err := sendMedia(t.Context(), c, v.file, nil, 10_000)
		if err != nil {
			t.Errorf("%s: %v", v.name, err)
			continue
		}
		if a.GetMedia().GetFormat() != "jpeg" || len(a.GetMedia().GetFrames()) != 1 || len(a.GetMedia().GetDigests()) != 3 ||
			len(a.GetMedia().GetFrames()[0].GetHashes()) != 3 || a.GetLookup().GetIndexSeq() != n.lists.Seq() {
			t.Errorf("%s: %v", v.name, a)
		}
		found := ""
		if len(a.GetLookup().GetMatches()) > 0 {
			found = a.GetLookup().GetMatches()[0].GetTransform()
		}
		verdict := pb.Verdict_VERDICT_REJECT
		if v.transform == "" {
			verdict = pb.Verdict_VERDICT_ALLOW
		}
		if found != v.transform || a.GetLookup().GetVerdict() != verdict {
			t.Errorf("%s: found as %q, verdict %v", v.name, found, a.GetLookup().GetVerdict())
		}
	}
}

func TestLookupMediaRefuses(t *testing.T) {
	n := start(t, func(c *Config) { c.Limit.MediaBytes = 2 << 20 })
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	good := encodeJPEG(t, photo(1, 64, 64), 90)
	for _, r := range []struct {
		name  string
		file  []byte
		o     *pb.LookupMediaOptions
		chunk int
		want  codes.Code
	}{
		{"picture", good, nil, 100, codes.OK},
		{"no bytes", nil, nil, 100, codes.InvalidArgument},
		{"text", []byte("hello, world"), nil, 100, codes.InvalidArgument},
		{"broken", good[:60], nil, 100, codes.InvalidArgument},
		{"video", []byte("\x1aE\xdf\xa3 and so on, a film"), nil, 100, codes.InvalidArgument},
		{"bomb", []byte("GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02\x44\x01\x00;"), nil, 100, codes.ResourceExhausted},
		{"too many bytes", bytes.Repeat([]byte{'x'}, 2<<20+1), nil, 1 << 20, codes.ResourceExhausted},
		{"chunk too large", bytes.Repeat([]byte{'x'}, 1<<20+1), nil, 1<<20 + 1, codes.InvalidArgument},
		{"message too large", bytes.Repeat([]byte{'x'}, 5<<20), nil, 5 << 20, codes.ResourceExhausted},
		{"limit", good, &pb.LookupMediaOptions{Limit: 1001}, 100, codes.InvalidArgument},
		{"unknown list", good, &pb.LookupMediaOptions{Lists: []string{"no"}}, 100, codes.NotFound},
	} {
		_, err := sendMedia(t.Context(), c, r.file, r.o, r.chunk)
		wantCode(t, r.name, err, r.want)
	}
	stream, err := c.LookupMedia(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.CloseAndRecv()
	wantCode(t, "no message", err, codes.InvalidArgument)
	stream, _ = c.LookupMedia(t.Context())
	for range 2 {
		stream.Send(&pb.LookupMediaRequest{Options: &pb.LookupMediaOptions{}, Chunk: []byte("x")})
	}
	_, err = stream.CloseAndRecv()
	wantCode(t, "options twice", err, codes.InvalidArgument)
}

// TestLookupMediaWaits shows what ends a caller who sends nothing, and that one
// who has gone leaves no room taken.
func TestLookupMediaWaits(t *testing.T) {
	n := start(t, func(c *Config) { c.Limit.Idle, c.Limit.Uploads = 20*time.Millisecond, 1 })
	c := pb.NewLookupServiceClient(n.dial(n.grpc, n.token("t", ScopeLookup)))
	stream, err := c.LookupMedia(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LookupMediaRequest{Chunk: []byte("\xff\xd8\xff")})
	err = stream.RecvMsg(new(pb.LookupMediaResponse))
	wantCode(t, "silence", err, codes.DeadlineExceeded)

	slow := start(t, func(c *Config) { c.Limit.Deadline = 50 * time.Millisecond })
	stream, err = pb.NewLookupServiceClient(slow.dial(slow.grpc, slow.token("t", ScopeLookup))).LookupMedia(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LookupMediaRequest{Chunk: []byte("\xff\xd8\xff")})
	err = stream.RecvMsg(new(pb.LookupMediaResponse))
	wantCode(t, "longer than the deadline", err, codes.DeadlineExceeded)

	gone, leave := context.WithCancel(t.Context())
	stream, err = c.LookupMedia(gone)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LookupMediaRequest{Chunk: []byte("\xff\xd8\xff")})
	leave()
	_, err = sendMedia(t.Context(), c, encodeJPEG(t, photo(1, 64, 64), 90), nil, 1000)
	wantCode(t, "the next after one who has gone", err, codes.OK)
}

// TestDigestsOfUndecodable shows that a file that cannot be decoded is found by
// its digests, and that only SHA-256 shows that one is harmless.
func TestDigestsOfUndecodable(t *testing.T) {
	n := start(t)
	files := [][]byte{[]byte("no picture 1"), []byte("no picture 2"), []byte("no picture 3"), []byte("\x1aE\xdf\xa3 film")}
	md5, _, _ := imagehash.Digests(files[0])
	_, sha1, _ := imagehash.Digests(files[1])
	_, _, harmless := imagehash.Digests(files[2])
	_, _, film := imagehash.Digests(files[3])
	n.ban("bad", film, sha1)
	owner := pb.NewListServiceClient(n.owner())
	if _, err := owner.CreateList(t.Context(), &pb.CreateListRequest{List: &pb.List{Name: "good", Action: pb.Action_ACTION_ACCEPT}}); err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Submit(t.Context(), &pb.SubmitRequest{List: "good", Hashes: texts([]hashlist.Hash{md5, harmless})}); err != nil {
		t.Fatal(err)
	}
	c := pb.NewLookupServiceClient(n.owner())
	_, err := sendMedia(t.Context(), c, files[0], nil, 100)
	wantCode(t, "harmless by MD5 alone", err, codes.InvalidArgument)
	a, err := sendMedia(t.Context(), c, files[1], nil, 100)
	if err != nil || a.GetLookup().GetVerdict() != pb.Verdict_VERDICT_HOLD || a.GetMedia().GetFormat() != "" || len(a.GetMedia().GetDigests()) != 3 {
		t.Errorf("banned by SHA-1 alone: %v, %v", a, err)
	}
	a, err = sendMedia(t.Context(), c, files[2], nil, 100)
	if err != nil || a.GetLookup().GetVerdict() != pb.Verdict_VERDICT_ALLOW || len(a.GetLookup().GetMatches()) != 1 {
		t.Errorf("harmless by SHA-256: %v, %v", a, err)
	}
	a, err = sendMedia(t.Context(), c, files[3], nil, 100)
	if err != nil || a.GetLookup().GetVerdict() != pb.Verdict_VERDICT_REJECT {
		t.Errorf("video banned by SHA-256: %v, %v", a, err)
	}
}

// TestCacheIsNeverStale looks the same file up before and after it is banned.
func TestCacheIsNeverStale(t *testing.T) {
	n := start(t)
	file := encodeJPEG(t, photo(9, 320, 240), 90)
	c := pb.NewLookupServiceClient(n.owner())
	verdict := func() pb.Verdict {
		a, err := sendMedia(t.Context(), c, file, nil, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return a.GetLookup().GetVerdict()
	}
	if v := verdict(); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("before: %v", v)
	}
	decoded := hasher().Stats().Decoded["jpeg"]
	if v := verdict(); v != pb.Verdict_VERDICT_ALLOW {
		t.Errorf("again: %v", v)
	}
	n.ban("gore", n.media(file).Frames[0].PDQ[0]) // decodes once itself
	if v := verdict(); v != pb.Verdict_VERDICT_REJECT {
		t.Errorf("after it was banned: %v", v)
	}
	if got := hasher().Stats().Decoded["jpeg"] - decoded; got != 1 {
		t.Errorf("the server decoded %d more times what it had in its cache", got-1)
	}
}

func FuzzLookupRequest(f *testing.F) {
	cfg, _ := testConfig(f)
	s := &Server{cfg: cfg}
	s.cfg.withDefaults()
	add := func(r *pb.LookupRequest) {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	add(&pb.LookupRequest{Hashes: texts(randomHashes(2)), Limit: 3})
	add(&pb.LookupRequest{Hashes: []string{"md5:d41d8cd98f00b204e9800998ecf8427e", "phash:0000000000000001"}, Lists: []string{"a"}})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := new(pb.LookupRequest)
		if proto.Unmarshal(b, r) != nil {
			return
		}
		q, err := s.query(r)
		if err != nil {
			if c := statusOf(err).Code(); c != codes.InvalidArgument && c != codes.NotFound {
				t.Errorf("%v: %v", c, err)
			}
			return
		}
		if len(q.Probes) < len(r.GetHashes()) || len(q.Probes) > 2*maxLookupHashes || q.Limit < 1 || q.Limit > maxMatches {
			t.Errorf("%d hashes became %d probes, limit %d", len(r.GetHashes()), len(q.Probes), q.Limit)
		}
		for _, p := range q.Probes {
			if p.Transform == "" && p.Hash.String() != r.GetHashes()[p.Index] {
				t.Errorf("probe %v of %q", p.Hash, r.GetHashes()[p.Index])
			}
		}
		budget := answerBytes
		result := cfg.Lists.Lookup(q)
		if v := lookupResponse(&result, &budget); v.GetVerdict() != pb.Verdict_VERDICT_ALLOW {
			t.Errorf("an empty index answers %v", v)
		}
	})
}

// TestTransparentFrames: the looks of one transparent frame are judged each for
// itself, or a harmless picture in the colours would clear a banned one in the
// transparency.
func TestTransparentFrames(t *testing.T) {
	h := randomHashes(4)
	m := &imagehash.Media{Frames: []imagehash.Frame{{Quality: 100}, {Quality: 100}}}
	m.MD5, m.SHA1, m.SHA256 = imagehash.Digests([]byte("x"))
	m.Frames[0].PDQ[0], m.Frames[1].PDQ[0] = h[0], h[1]
	seen := map[hashlist.Hash]int{}
	for _, p := range probes(m, 50) {
		seen[p.Hash] = p.Index
	}
	if seen[h[0]] == seen[h[1]] {
		t.Errorf("both looks have index %d", seen[h[0]])
	}
}
