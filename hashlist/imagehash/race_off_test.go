//go:build !race

package imagehash

const raceDetector = false
