//go:build !race

package bktree

const raceBuild = false
