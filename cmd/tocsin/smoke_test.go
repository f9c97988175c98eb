package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	pb "github.com/tocsin-fed/tocsin/proto/tocsin/v1"
)

// TestPhotographs bans one real photograph and uploads all of them, by the hook
// and over gRPC.
func TestPhotographs(t *testing.T) {
	dir := newNode(t)
	d := startDaemon(t, dir, program(t, serveArgs(dir)...))
	d.list(t, "refused")
	tocsin(t, "ban", "--data", dir, "--list", "refused", "../demo/photos/cat.jpg")
	token := d.token(t, "pictrs", "lookup")
	for _, name := range []string{"cat.jpg", "coffee.jpg", "dogs.jpg", "brook.jpg", "mountains.jpg"} {
		file := photo(t, name)
		status, body, err := hook(t.Context(), http.DefaultClient, d.HTTP, token, "image/jpeg", file)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := lookupMedia(t.Context(), d.lookups, file)
		if err != nil {
			t.Fatal(err)
		}
		m := answer.GetMedia()
		if m.GetFormat() != "jpeg" || len(m.GetFrames()) != 1 || m.GetFrames()[0].GetQuality() < 50 || len(m.GetDigests()) != 3 {
			t.Errorf("%s: media is %v", name, m)
		}
		if name != "cat.jpg" {
			if status/100 != 2 || answer.GetLookup().GetVerdict() != pb.Verdict_VERDICT_ALLOW || len(answer.GetLookup().GetMatches()) > 0 {
				t.Errorf("%s: hook %d, gRPC %v, want it to pass", name, status, answer.GetLookup())
			}
			continue
		}
		if status != http.StatusForbidden || answer.GetLookup().GetVerdict() != pb.Verdict_VERDICT_REJECT {
			t.Errorf("%s: hook %d, gRPC %v, want it refused", name, status, answer.GetLookup())
		}
		if !json.Valid(body) {
			t.Errorf("%s: the hook's reason is not JSON: %s", name, body)
		}
		for _, h := range append(m.GetDigests(), m.GetFrames()[0].GetHashes()...) {
			if _, hex, _ := strings.Cut(h, ":"); strings.Contains(strings.ToLower(string(body)), hex) {
				t.Errorf("%s: the hook's answer tells the hash %s", name, h)
			}
		}
	}
	d.stop(t, d.cmd.Process.Pid)
}
