package main

import (
	"errors"
	"os"
	"path/filepath"
)

// What lies in a data directory.
const (
	configName   = "config.toml"
	databaseName = "tocsin.db"
	keysName     = "keys" // directory of the keys
)

// systemData is the data directory of a node that was installed for the whole machine.
const systemData = "/var/lib/tocsin"

// dataDir finds the node: --data, TOCSIN_DATA, ./data if a node is there, or
// else that of the machine.
func (a *app) dataDir() string {
	if a.data != "" {
		return a.data
	}
	if dir := os.Getenv("TOCSIN_DATA"); dir != "" {
		return dir
	}
	if _, err := os.Stat(filepath.Join("data", configName)); err == nil {
		return "./data"
	}
	return systemData
}

// writeNew writes a file that must not exist yet, durably and readable by its
// owner alone.
func writeNew(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
