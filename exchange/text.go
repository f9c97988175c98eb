package exchange

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// parsePlain reads a hash, bare or after its algorithm's name and a colon.
func parsePlain(line []byte, _ int, o Options) (Row, error) {
	row := Row{Quality: -1}
	a := o.Algorithm
	var err error
	if name, digits, named := bytes.Cut(line, []byte(":")); named {
		if a, err = parseAlgorithm(name); err != nil {
			return Row{}, err
		}
		line = digits
	} else if a == 0 {
		if a, err = guessAlgorithm(len(line)); err != nil {
			return Row{}, err
		}
	}
	row.Hash, err = parseHash(a, line)
	return row, err
}

// guessAlgorithm goes by the number of characters. Lists of bare SHA-256 are
// rarer here than lists of bare PDQ.
func guessAlgorithm(n int) (hashlist.Algorithm, error) {
	switch n {
	case 64, 256:
		return hashlist.PDQ, nil
	case 40:
		return hashlist.SHA1, nil
	case 32:
		return hashlist.MD5, nil
	case 16:
		return 0, errors.New("16 hex digits may be phash or dhash: say which algorithm it is")
	case 44:
		return 0, errors.New("44 characters may be pdq or sha256 in base64: say which algorithm it is")
	}
	return 0, fmt.Errorf("%d characters are no hash (pdq and sha256 have 64 hex digits, sha1 40, md5 32, phash and dhash 16)", n)
}

// parsePair reads an algorithm's name, blanks and a hash.
func parsePair(line []byte, _ int, o Options) (Row, error) {
	i := bytes.IndexAny(line, " \t")
	if i < 0 {
		return Row{}, errors.New(`no blank (want the algorithm's name and the hash, as in "pdq f8f8…")`)
	}
	a, err := parseAlgorithm(line[:i])
	if err != nil {
		return Row{}, err
	}
	row := Row{Quality: -1}
	row.Hash, err = parseHash(a, bytes.TrimLeft(line[i:], " \t"))
	return row, err
}

// parsePDQCSV reads hash,quality,filename. The reference tool quotes nothing
// (facebook/ThreatExchange, pdq/cpp/bin/pdq-photo-hasher.cpp), so the filename
// is all that follows the second comma. It is not kept: it can be a person's
// name. A header and quotes round the first two fields, which other programs
// write, are accepted.
func parsePDQCSV(line []byte, number int, o Options) (Row, error) {
	digits, rest, _ := bytes.Cut(line, []byte(","))
	quality, _, _ := bytes.Cut(rest, []byte(","))
	digits, quality = unquote(digits), unquote(quality)
	if number == 1 && bytes.EqualFold(digits, []byte("hash")) {
		return Row{}, errNoRow
	}
	if bytes.HasPrefix(digits, []byte("hash=")) {
		return Row{}, errors.New("this is the tool's detailed output: run it without --details")
	}
	if len(rest) == 0 {
		return Row{}, errors.New("no comma (want hash,quality,filename)")
	}
	row := Row{Quality: -1}
	var err error
	if row.Hash, err = parseHash(hashlist.PDQ, digits); err != nil {
		return Row{}, err
	}
	if len(quality) == 0 { // RowWriter leaves an unknown quality out
		return row, nil
	}
	if row.Quality, err = strconv.Atoi(string(quality)); err != nil || row.Quality < 0 || row.Quality > 100 {
		return Row{}, errors.New("the second field is not a quality from 0 to 100")
	}
	return row, o.checkQuality(row.Quality)
}

func unquote(field []byte) []byte {
	field = bytes.TrimSpace(field)
	if n := len(field); n >= 2 && field[0] == '"' && field[n-1] == '"' {
		return field[1 : n-1]
	}
	return field
}

// parseAlgorithm is hashlist.ParseAlgorithm for a name in any case, and with an
// error that cannot show a hash where the name should be.
func parseAlgorithm(name []byte) (hashlist.Algorithm, error) {
	for _, a := range hashlist.Algorithms {
		if s := a.String(); len(s) == len(name) && bytes.EqualFold(name, []byte(s)) {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown hash algorithm %.12q (want pdq, phash, dhash, md5, sha1, sha256 or vpdq)", name)
}

// parseHash is hashlist.ParseHashLenient without an allocation for the usual
// form, hexadecimal, and without a name before the digits.
func parseHash(a hashlist.Algorithm, digits []byte) (hashlist.Hash, error) {
	var sum [32]byte
	n := a.Size()
	if len(digits) == 2*n {
		if _, err := hex.Decode(sum[:], digits); err != nil {
			return hashlist.Hash{}, fmt.Errorf("%v hash is not hexadecimal", a)
		}
		return hashlist.NewHash(a, sum[:n])
	}
	if bytes.IndexByte(digits, ':') >= 0 {
		return hashlist.Hash{}, fmt.Errorf("%v hash has a colon in it", a)
	}
	return hashlist.ParseHashLenient(a, string(digits))
}

func appendPlain(line []byte, row Row) ([]byte, error) {
	line = append(line, row.Hash.Algorithm().String()...)
	line = append(line, ':')
	return hex.AppendEncode(line, row.Hash.Sum()), nil
}

func appendPair(line []byte, row Row) ([]byte, error) {
	line = append(line, row.Hash.Algorithm().String()...)
	line = append(line, ' ')
	return hex.AppendEncode(line, row.Hash.Sum()), nil
}

func appendPDQCSV(line []byte, row Row) ([]byte, error) {
	if row.Hash.Algorithm() != hashlist.PDQ {
		return line, ErrCannotCarry
	}
	line = append(hex.AppendEncode(line, row.Hash.Sum()), ',')
	if row.Quality >= 0 {
		line = strconv.AppendInt(line, int64(row.Quality), 10)
	}
	return append(line, ','), nil
}
