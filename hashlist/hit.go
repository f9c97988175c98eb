package hashlist

import "time"

// Hit is an upload of the recent past that would be answered more gravely today than
// it was: what was banned came after it.
type Hit struct {
	Seq       uint64 // place among the hits, from 1: a cursor
	ID        string // the same for a hit and for its withdrawal
	At        time.Time
	Seen      SeenUpload
	Verdict   Verdict   // what the upload comes to now
	Algorithm Algorithm // of the match
	Match     Match     // the one that decided, without its hash
	Reason    string    // one sentence that holds no hash
	Withdrawn bool      // what was said against it does not act any more
}

// SeenUpload is a picture in the recent window.
type SeenUpload struct {
	First, Last time.Time  // UTC, whole seconds
	Count       int        // how often it came
	Answered    Verdict    // the mildest answer that is not yet called into question by a hit
	Sightings   []Sighting // the last of them, at most MaxSightings, the newest last
}

// MaxSightings is how many references are kept of one picture.
const MaxSightings = 16

// Sighting is one time that a picture came.
type Sighting struct {
	ID        uint64 // what LookupResponse.seen_id said
	At        time.Time
	Answered  Verdict
	Reference Reference
}
