package exchange

import (
	"slices"

	"github.com/tocsin-fed/tocsin/hashlist"
)

// carried is what is left of a row after it has been through a format, and whether the format has a
// place for it at all. It says in the tests' own words what docs/exchange.md says of each format.
func carried(name string, row Row) (Row, bool) {
	kind, action, labels := row.Kind(), row.Action, row.Labels
	blocked := action == 0 || action >= hashlist.Reject
	only := func(keep ...string) {
		row.Labels = slices.DeleteFunc(slices.Clone(labels), func(l string) bool { return !slices.Contains(keep, l) })
		if len(row.Labels) == 0 {
			row.Labels = nil
		}
	}
	if name == "csv" {
		row.Quality = -1
		return row, true
	}
	if kind == hashlist.AddHashes {
		a, quality := row.Hash.Algorithm(), row.Quality
		row.Quality, row.Action, row.Reason = -1, 0, ""
		only()
		photo := a == hashlist.PDQ
		switch name {
		case "plain", "pdq":
			return row, true
		case "pdq-csv":
			row.Quality = quality
			return row, photo
		case "pytx":
			row.Labels = labels
			return row, a != hashlist.PHash && a != hashlist.DHash && a != hashlist.VPDQ
		case "hma":
			return row, a != hashlist.PHash && a != hashlist.DHash && a != hashlist.VPDQ
		case "vpdq":
			if row.Quality = quality; quality < 0 {
				row.Quality = 100
			}
			return row, a == hashlist.VPDQ
		case "ncmec":
			row.Labels = []string{"csam"}
			for _, l := range labels {
				if len(l) > 6 && l[:6] == "ncmec-" {
					row.Labels = append(row.Labels, l)
					break
				}
			}
			return row, photo || a == hashlist.MD5 || a == hashlist.SHA1
		case "stopncii":
			row.Labels = []string{"ncii"}
			return row, photo || a == hashlist.MD5
		case "techagainstterrorism":
			row.Labels = []string{"terrorism"}
			for _, l := range labels {
				if l != "terrorism" {
					row.Labels = slices.Sorted(slices.Values([]string{l, "terrorism"}))
					break
				}
			}
			return row, true
		}
		return row, false
	}
	row.Quality = -1
	if blocked {
		row.Action = hashlist.Drop
	}
	advisory := LabelAdvisory
	if action != hashlist.Filter {
		advisory = ""
	}
	switch instance := kind == hashlist.AddInstances; name {
	case "mastodon", "fediblockhole":
		only(advisory, LabelRejectMedia, LabelRejectReports, LabelObfuscate)
		row.Reason = flat(row.Reason)
		return row, instance && action != hashlist.Accept
	case "gotosocial-csv":
		only(LabelRejectMedia, LabelRejectReports, LabelObfuscate)
		row.Reason = flat(row.Reason)
		return row, instance && blocked
	case "mastodon-api":
		only(advisory, LabelRejectMedia, LabelRejectReports, LabelObfuscate)
		return row, instance && action != hashlist.Accept
	case "gotosocial-json":
		only(LabelObfuscate)
		return row, instance && blocked
	case "domains":
		only()
		row.Reason = ""
		return row, instance && blocked
	case "rapidblock":
		return row, instance && blocked
	case "peertube":
		only()
		row.Reason, row.Action = "", hashlist.Reject
		if !instance {
			handle := handleOf(row.Subject)
			if handle == "" {
				return row, false
			}
			row.Subject, _ = Options{}.account(handle, "")
		}
		return row, blocked
	case "pleroma":
		known := []string{LabelRejectMedia, LabelRejectReports, "media-nsfw", "avatar-removal", "banner-removal", "background-removal", "followers-only", "reject-deletes"}
		only(known...)
		nothing := row.Labels == nil
		only(append(known, advisory)...)
		return row, instance && !(nothing && action == hashlist.Filter && slices.Contains(labels, LabelAdvisory))
	case "fediseer":
		if blocked {
			row.Action = hashlist.Reject
		}
		return row, instance
	case "lemmy":
		only()
		row.Reason = ""
		return row, instance && action != hashlist.Filter
	case "fires", "fires-changes":
		row.Action = action
		if action == 0 {
			row.Action = hashlist.Drop
		}
		return row, true
	}
	return row, false
}
