// Package platform acts on the servers that a node protects, as an admin of them
// would: it removes a post, deletes a file, bans a person, blocks an instance,
// through the API that each platform documents.
//
// What it is told comes from the node's own verdicts, and it does damage when it is
// wrong, so it is slow to act. Nothing is done that the operator has not switched on for
// that platform, nothing beyond its caps, nothing to a local admin, nothing twice, and
// nothing that a person took back. Each act is written down before the request
// that does it leaves, with what the platform said of its target then, and again when the
// outcome is known; whatever was under way when the process ended is looked up on the
// platform first. An act that cannot be taken back says so before it is done.
//
// The platforms are the operator's own, so they may have private addresses. Their
// answers are bounded all the same: what stands behind an address may have changed.
package platform
