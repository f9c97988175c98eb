package federation

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A list is a sequence of statements that only grows. Its tree is the Merkle
// tree over them (RFC 6962, section 2.1); a leaf is the id of a statement, which is a
// digest of all that was said. Its head, the size and root of the tree, is signed: whoever has seen
// a head can tell whether a statement was taken out, put in or changed since, and
// two who compare theirs can tell whether they were shown the same.

// maxHead is the most bytes of a signed head.
const maxHead = 4 << 10

// leafOf is the hash of a leaf.
func leafOf(statement string) tlog.Hash { return tlog.RecordHash([]byte(statement)) }

// tree is a Merkle tree that grows at its end. It is not safe for concurrent use.
type tree struct {
	hashes []tlog.Hash // as tlog stores them: each complete subtree after its leaves
	size   int64
}

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	all := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x < 0 || x >= int64(len(t.hashes)) {
			return nil, fmt.Errorf("hash %d of a tree of %d", x, len(t.hashes))
		}
		all[i] = t.hashes[x]
	}
	return all, nil
}

func (t *tree) add(leaf tlog.Hash) {
	more, err := tlog.StoredHashesForRecordHash(t.size, leaf, t)
	if err != nil {
		panic(err) // it reads only what add has stored
	}
	t.hashes = append(t.hashes, more...)
	t.size++
}

// cut takes the tree back to a smaller size.
func (t *tree) cut(size int64) {
	t.hashes, t.size = t.hashes[:tlog.StoredHashCount(size)], size
}

// leaf returns the hash of the leaf at a place below the size.
func (t *tree) leaf(at int64) tlog.Hash { return t.hashes[tlog.StoredHashIndex(0, at)] }

// root returns the root the tree had when it was of the given size, which may
// not be larger than it is.
func (t *tree) root(size int64) tlog.Hash {
	h, err := tlog.TreeHash(size, t)
	if err != nil {
		panic(err)
	}
	return h
}

// head is what is signed of a list: so many statements, in this order.
type head struct {
	list string // IRI
	size int64
	root tlog.Hash
}

// origin is the first line of a list's heads, and the name of the keys that
// sign them: its IRI without the scheme (C2SP tlog-checkpoint, "origin").
func headOrigin(list string) string {
	_, rest, _ := strings.Cut(list, "://")
	return rest
}

// headSigner signs heads. A note.Signer made by the note package wants keys in
// a text form of its own.
type headSigner struct {
	note.Verifier
	key ed25519.PrivateKey
}

// Sign implements note.Signer.
func (s headSigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.key, msg), nil }

func headVerifier(list string, public ed25519.PublicKey) (note.Verifier, error) {
	text, err := note.NewEd25519VerifierKey(headOrigin(list), public)
	if err != nil {
		return nil, fmt.Errorf("key of the heads of %s: %w", list, err)
	}
	return note.NewVerifier(text)
}

// sign returns the head as a checkpoint (C2SP tlog-checkpoint) in a signed note.
func (h head) sign(key ed25519.PrivateKey) ([]byte, error) {
	v, err := headVerifier(h.list, key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	text := headOrigin(h.list) + "\n" + strconv.FormatInt(h.size, 10) + "\n" + h.root.String() + "\n"
	return note.Sign(&note.Note{Text: text}, headSigner{v, key})
}

// openHead reads a signed head of a list and checks that one of the keys signed it.
func openHead(signed []byte, list string, keys []ed25519.PublicKey) (head, error) {
	if len(signed) > maxHead {
		return head{}, fmt.Errorf("head of %d bytes is larger than %d", len(signed), maxHead)
	}
	var known []note.Verifier
	for _, k := range keys {
		v, err := headVerifier(list, k)
		if err != nil {
			return head{}, err
		}
		known = append(known, v)
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return head{}, fmt.Errorf("head is not signed with the list's key: %w", err)
	}
	h, err := parseHead(n.Text)
	if err != nil {
		return head{}, err
	}
	if h.list != headOrigin(list) {
		return head{}, fmt.Errorf("head is of %.200q, not of %s", h.list, list)
	}
	h.list = list
	return h, nil
}

// parseHead reads a head's text. Its list is without scheme.
func parseHead(text string) (head, error) {
	lines := strings.SplitN(text, "\n", 5) // more lines than ours are allowed, and mean nothing here
	if len(lines) < 4 {
		return head{}, errors.New("head has fewer than three lines")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return head{}, fmt.Errorf("head has size %.40q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return head{}, errors.New("head has no root of 32 bytes in base64")
	}
	return head{lines[0], size, tlog.Hash(root)}, nil
}
