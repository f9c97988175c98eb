package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// checkRef reports what is wrong with how a list is named: by its name, by
// NAME@HOST, or by its address.
func checkRef(list string) error {
	if !strings.Contains(list, "://") {
		name, host, both := strings.Cut(strings.TrimPrefix(list, "@"), "@")
		if both && host == "" || !both && strings.HasPrefix(list, "@") {
			return fmt.Errorf("list %.80q is neither NAME nor NAME@HOST", list)
		}
		return checkListName(name)
	}
	if _, err := hashlist.Origin(list); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	return nil
}

func checkListName(name string) error {
	if err := hashlist.CheckName(name); err != nil {
		return fmt.Errorf("name of a list: %w", err)
	}
	return nil
}

// checkedLabels brings labels into the order of statements.
func checkedLabels(labels []string) ([]string, error) {
	labels = slices.Clone(labels)
	slices.Sort(labels)
	labels = slices.Compact(labels)
	return labels, hashlist.CheckLabels(labels)
}

func parseAlgorithms(names []string) ([]hashlist.Algorithm, error) {
	var all []hashlist.Algorithm
	for _, name := range names {
		alg, err := hashlist.ParseAlgorithm(name)
		if err != nil {
			return nil, err
		}
		all = append(all, alg)
	}
	return all, nil
}

// parseSubject tells the hashes among the arguments of a command from the
// files. "algorithm:hex" is a hash; so is bare hexadecimal of the right length
// if bare is an algorithm. All else names a file; ./pdq:x is a file called so.
// What looks like a hash, but is not written as one, is an error unless there is
// a file of that name.
func parseSubject(arg string, bare hashlist.Algorithm) (h hashlist.Hash, isHash bool, err error) {
	name, digits, ok := strings.Cut(arg, ":")
	if ok {
		if _, err := hashlist.ParseAlgorithm(name); err == nil {
			h, err = hashlist.ParseHash(arg)
			return h, true, err
		}
	}
	if bare.Valid() && len(arg) == 2*bare.Size() && isHex(arg) {
		h, err = hashlist.ParseHashLenient(bare, arg)
		return h, true, err
	}
	const shortest = 16 // digits of a 64-bit hash
	_, unknown := hashlist.ParseAlgorithm(strings.ToLower(name))
	if ok && unknown == nil && isHex(digits) || len(arg) >= shortest && isHex(arg) {
		if _, err := os.Lstat(arg); errors.Is(err, fs.ErrNotExist) {
			return hashlist.Hash{}, false, fmt.Errorf("%.80q: no such file; to look up a hash write pdq:… in lower case, or give --algorithm", arg)
		}
	}
	return hashlist.Hash{}, false, nil
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdefABCDEF") == "" }
