// Package hashlist is the heart of tocsin: what admins say about media, how
// what they say is merged, and what a hash that is looked up comes to.
//
// A node keeps a [Log] of statements, its own and other people's, each with
// the very bytes that were signed. Everything else is worked out from the log.
// [Lists] is the fold over it: the statements in force, the named lists they
// belong to, and an index that finds every listed hash within a Hamming radius
// of a hash that is asked for.
//
// A [Statement] is what one issuer said, once. It never changes. It defines a
// list, adds hashes, accounts, servers or addresses of content to one, confirms or
// disputes what another issuer said, or retracts an earlier statement
// of the same issuer, whole or in part. Because nothing is ever
// edited, merging is commutative and idempotent: any order of arrival and any
// repetition of the same statements give the same fold on every node. What
// looks like an update is a newer statement; nothing acts on absence.
//
// A [Query] asks about one file or picture: its digests and perceptual hashes.
// [Lists.Lookup] answers with the matches, the issuer and statement behind each,
// and the [Verdict] that the node's [Policy] draws from them. Hashes on a list
// whose action is [Accept] are known to be harmless and suppress matches that
// are no nearer than they are. [Lists.Subject] finds the statements about an account,
// a server or an address of content, and [Lists.About] what others say of a statement.
//
// How far issuers are believed follows from statements by which they vouch for each
// other, as a maximum flow from this node's own issuers: [Lists.Belief].
//
// What another node lists counts here as far as [Lists.Heed] says, and
// [Lists.Void] takes back what was said with a stolen key. Neither is part of the
// fold that nodes compare.
//
// This package speaks no HTTP and no SQL and opens no files. What it holds has
// been checked by those who brought it: package federation turns bytes into
// statements and checks their proofs, package store makes them durable.
package hashlist
