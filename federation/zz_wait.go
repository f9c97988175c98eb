package federation

import "errors"

var ErrUnknownKind = errors.New("unknown kind")
