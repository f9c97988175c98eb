package federation

import (
	"crypto/rsa"
	"net/http"
	"time"
)

// CheckRequest checks the signature of a request as a node at origin does, but
// for where the key comes from.
func CheckRequest(r *http.Request, body []byte, origin string, key *rsa.PublicKey) error {
	s, err := readSignature(r)
	if err != nil {
		return err
	}
	return s.verify(r, body, origin, key, time.Now())
}
