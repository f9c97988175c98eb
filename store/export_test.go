package store

import "database/sql"

// Writer lets tests ask SQLite what it was told, and make it fail.
func (db *DB) Writer() *sql.DB { return db.writer }

// RowSum lets tests write rows that only their content gives away.
var RowSum = rowSum
