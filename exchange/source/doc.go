// Package source subscribes to lists that are not made by nodes like this one: files
// at an address, and the APIs of other systems.
//
// A [Source] is read on a schedule. Each [Run] fetches what the source says, compares it
// with what it said before, which is on a list of this node's own, and plans what
// to sign: what is new, what has changed, what it has taken back. The node's issuer signs that
// on behalf of the source, and the list acts as far as the operator believes the
// source and no further (hashlist.Lists.OnBehalf).
//
// Nothing acts that a person could not have expected. The first run of a source is a draft:
// it is shown, and nothing is signed before a person approves it. So it is with a source
// that comes back empty or much smaller, that changes more than it may in one
// run, or that has more rows that cannot be read than rows that can. What fails changes nothing.
// What a person took off the list stays off, whatever the source says.
//
// Everything a source sends is from a stranger: its size, its time, its encoding and its
// media type are bounded before a reader of package exchange sees it, and
// requests go through the guarded client of package federation alone.
package source
