//go:build (!amd64 && !arm64) || race

package bktree

import "unsafe"

func kernels() []kernel { return []kernel{goKernel} }

func fetchLine(unsafe.Pointer)        {}
func fetchBuckets(*uintptr, int, int) {}
func ownLine(unsafe.Pointer)          {}
