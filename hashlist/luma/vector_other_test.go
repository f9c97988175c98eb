//go:build !amd64

package luma

import "testing"

func without(*testing.T) {}
