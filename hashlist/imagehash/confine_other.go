//go:build !linux

package imagehash

import (
	"errors"
	"syscall"
)

// Without Linux's limits a child cannot be confined, and is not started.
var errPlatform = errors.New("decode workers run on linux only")

func confine(int64) error { return errPlatform }

func childAttributes() (*syscall.SysProcAttr, error) { return nil, errPlatform }

func selfPath() (string, error) { return "", errPlatform }
