package federation

import "bytes"

// isCanonical reports whether data is certainly what canonical would return
// for it. Almost all statements come in canonical form, and to see that is twenty times
// as fast as to make it anew. It is strict where that keeps it simple: what has
// letters beyond ASCII, rare escapes, or numbers other than whole ones of up to 15 digits is
// left to canonical.
func isCanonical(data []byte) bool {
	if len(data) == 0 || data[0] != '{' {
		return false
	}
	s := canonicalScan{data: data}
	return s.value(1) && s.at == len(data)
}

// canonicalScan reads canonical JSON. Its methods read one thing each from at on, and report
// whether that was there.
type canonicalScan struct {
	data []byte
	at   int
}

func (s *canonicalScan) next(c byte) bool {
	if s.at < len(s.data) && s.data[s.at] == c {
		s.at++
		return true
	}
	return false
}

// value reads a value. depth is how deep it nests if it is an array or an object.
func (s *canonicalScan) value(depth int) bool {
	if s.at == len(s.data) {
		return false
	}
	switch c := s.data[s.at]; {
	case c == '"':
		_, ok := s.text()
		return ok
	case c == '{':
		return depth <= maxDepth && s.object(depth)
	case c == '[':
		return depth <= maxDepth && s.array(depth)
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	}
	return false
}

// object reads an object whose names stand in order and none twice.
func (s *canonicalScan) object(depth int) bool {
	s.at++
	if s.next('}') {
		return true
	}
	var before []byte
	for first := true; ; first = false {
		name, ok := s.text()
		if !ok {
			return false
		}
		if bytes.IndexByte(name, '\\') >= 0 { // its order is that of what it stands for
			return false
		}
		if !first && string(name) <= string(before) {
			return false
		}
		before = name
		if !s.next(':') || !s.value(depth+1) {
			return false
		}
		if s.next('}') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

// split returns the members of an object that isCanonical would agree to, and false for any other.
// Their values are parts of data.
func split(data []byte) ([]member, bool) {
	s := canonicalScan{data: data}
	if !s.next('{') {
		return nil, false
	}
	if s.next('}') {
		return nil, s.at == len(data)
	}
	all := make([]member, 0, 12)
	for {
		name, ok := s.text()
		if !ok || bytes.IndexByte(name, '\\') >= 0 || len(all) > 0 && string(name) <= all[len(all)-1].name || !s.next(':') {
			return nil, false
		}
		from := s.at
		if !s.value(2) {
			return nil, false
		}
		all = append(all, member{string(name), data[from:s.at:s.at]})
		if s.next('}') {
			return all, s.at == len(data)
		}
		if !s.next(',') {
			return nil, false
		}
	}
}

// splitTexts returns the strings of an array of nothing else that isCanonical would
// agree to, and false for any other.
func splitTexts(data []byte) ([]string, bool) {
	s := canonicalScan{data: data}
	if !s.next('[') {
		return nil, false
	}
	all := make([]string, 0, bytes.Count(data, []byte{','})+1)
	for {
		text, ok := s.text()
		if !ok || bytes.IndexByte(text, '\\') >= 0 {
			return nil, false
		}
		all = append(all, string(text))
		if s.next(']') {
			return all, s.at == len(data)
		}
		if !s.next(',') {
			return nil, false
		}
	}
}

func (s *canonicalScan) array(depth int) bool {
	s.at++
	if s.next(']') {
		return true
	}
	for {
		if !s.value(depth + 1) {
			return false
		}
		if s.next(']') {
			return true
		}
		if !s.next(',') {
			return false
		}
	}
}

// text reads a string and returns what stands between its quotes.
func (s *canonicalScan) text() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	from := s.at
	for ; s.at < len(s.data); s.at++ {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			return s.data[from : s.at-1], true
		case c == '\\':
			if s.at++; s.at == len(s.data) {
				return nil, false
			}
			switch s.data[s.at] {
			case '"', '\\', 'b', 'f', 'n', 'r', 't':
			default:
				return nil, false
			}
		case c < ' ' || c >= 0x7f:
			return nil, false
		}
	}
	return nil, false
}

func (s *canonicalScan) number() bool {
	if s.next('-') && s.at < len(s.data) && s.data[s.at] == '0' {
		return false // minus zero
	}
	if s.next('0') {
		return s.ends()
	}
	from := s.at
	for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
		s.at++
	}
	return from < s.at && s.at-from <= 15 && s.ends()
}

// ends reports whether a number is over: it has no fraction, exponent, or digit after a 0.
func (s *canonicalScan) ends() bool {
	return s.at < len(s.data) && (s.data[s.at] == ',' || s.data[s.at] == ']' || s.data[s.at] == '}')
}

func (s *canonicalScan) word(w string) bool {
	if len(s.data)-s.at < len(w) || string(s.data[s.at:s.at+len(w)]) != w {
		return false
	}
	s.at += len(w)
	return true
}
