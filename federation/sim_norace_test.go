//go:build !race

package federation_test

// simNodes is how many nodes a simulation has.
const simNodes = 200
