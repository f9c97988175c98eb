// Package federation is the strangers' side of tocsin: statements as they
// travel between nodes.
//
// A statement on the wire is an ActivityStreams activity in JSON, with an
// Ed25519 signature over its canonical form inside it (FEP-8b32, cryptosuite
// eddsa-jcs-2022). [Issuer.Seal] makes one, once; those bytes are what everybody
// stores, forwards and checks. [Open] is the only door through which bytes
// become a [hashlist.Statement]: it refuses what is too large, too deep or
// ambiguous, checks the proof against the issuer's key, and checks that the
// statement's id is the digest of its content.
//
// The shapes are specified in spec.md, whose examples run as tests of this package.
package federation
