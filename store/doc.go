// Package store keeps a node's log, what it agreed with other nodes and its
// access tokens in a database.
//
// [DB] satisfies [hashlist.Log] and [federation.Peers]. The database is SQLite,
// one file with its write-ahead log beside it, and one process uses it at a
// time: a lock on a third file, the database's name with .lock behind it, sees
// to that. In this process one connection writes and several read. Because there
// is one writer, places in the log are given out in the order in which they are
// committed, without gaps, and a reader's cursor never passes a place that is
// filled later.
//
// A database is made by [Create] alone. [Open] refuses what is missing,
// damaged, made by another program or made by a newer version of this one, and
// leaves it as it was: a node that quietly started with an empty log would
// wave through what its admins had banned.
//
// Who can write to the file can do what the contracts of these two say: hide
// statements, change what this node believes them to say, and say whom it
// follows, serves and takes for whom. The checksums kept here are against
// decaying disks, not against such a person.
package store
