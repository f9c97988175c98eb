//go:build race

package federation_test

// simNodes is fewer under the race detector, with which each takes about eight times as long.
const simNodes = 60
