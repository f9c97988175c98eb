//go:build !linux

package imagehash

import "os"

const canConfineVideo = false

func memoryFile([]byte) (*os.File, error) { return nil, errPlatform }

func confineVideo(int64, uint64) error { return errPlatform }

func execProgram(string, []string) error { return errPlatform }
