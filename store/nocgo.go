//go:build !cgo

package store

// Without cgo the SQLite driver compiles to a stub that fails when the first
// database is opened. A build that fails is found sooner. To mend it, install a
// C compiler and build with CGO_ENABLED=1.
var _ = tocsin_needs_cgo_install_gcc_and_build_with_CGO_ENABLED_1
