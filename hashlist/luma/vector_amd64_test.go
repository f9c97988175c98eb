package luma

import "testing"

// without turns vector instructions off for a test.
func without(t *testing.T) {
	was := vectors
	t.Cleanup(func() { vectors = was })
	vectors = false
}
