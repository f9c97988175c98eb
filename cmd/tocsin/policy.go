package main

import (
	"fmt"
	"path/filepath"

	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/rules"
)

// threshold is what one verdict needs, as in [policy.default.hold].
type threshold struct {
	Belief  int  `toml:"belief"`
	Issuers int  `toml:"issuers"`
	PDQ     int  `toml:"pdq"`
	PHash   int  `toml:"phash"`
	DHash   int  `toml:"dhash"`
	VPDQ    int  `toml:"vpdq"`
	Second  bool `toml:"second"`
}

// label says the same of one label, as in [policy.label.csam.hold]. What it leaves out is as for
// all labels.
type label struct {
	Flag   labelThreshold `toml:"flag"`
	Hold   labelThreshold `toml:"hold"`
	Reject labelThreshold `toml:"reject"`
}

type labelThreshold struct {
	Belief  *int  `toml:"belief"`
	Issuers *int  `toml:"issuers"`
	PDQ     *int  `toml:"pdq"`
	PHash   *int  `toml:"phash"`
	DHash   *int  `toml:"dhash"`
	VPDQ    *int  `toml:"vpdq"`
	Second  *bool `toml:"second"`
}

// with is t with what l says.
func (t threshold) with(l *labelThreshold) threshold {
	set(&t.Belief, l.Belief)
	set(&t.Issuers, l.Issuers)
	set(&t.PDQ, l.PDQ)
	set(&t.PHash, l.PHash)
	set(&t.DHash, l.DHash)
	set(&t.VPDQ, l.VPDQ)
	set(&t.Second, l.Second)
	return t
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// radius keeps what is out of range out of range.
func radius(n int) uint8 {
	if n < 0 || n > 255 {
		return 255
	}
	return uint8(n)
}

func (t threshold) threshold() hashlist.Threshold {
	return hashlist.Threshold{
		Belief: t.Belief, Issuers: t.Issuers, Second: t.Second,
		Radii: hashlist.Radii{
			hashlist.PDQ: radius(t.PDQ), hashlist.PHash: radius(t.PHash), hashlist.DHash: radius(t.DHash), hashlist.VPDQ: radius(t.VPDQ),
		},
	}
}

// thresholds are those for all labels, and for single ones.
func (c *config) thresholds() (hashlist.Thresholds, map[string]hashlist.Thresholds) {
	d := &c.Policy.Default
	all := hashlist.Thresholds{Flag: d.Flag.threshold(), Hold: d.Hold.threshold(), Reject: d.Reject.threshold()}
	var labels map[string]hashlist.Thresholds
	for name, l := range c.Policy.Label {
		if labels == nil {
			labels = map[string]hashlist.Thresholds{}
		}
		labels[name] = hashlist.Thresholds{
			Flag: d.Flag.with(&l.Flag).threshold(), Hold: d.Hold.with(&l.Hold).threshold(), Reject: d.Reject.with(&l.Reject).threshold(),
		}
	}
	return all, labels
}

// rules reads the file of rules of the configuration; nil if there is none.
func (c *config) rules(dir string) (*rules.Set, error) {
	if c.Policy.Rules == "" {
		return nil, nil
	}
	path := c.Policy.Rules
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	text, err := readBounded(path, rules.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	return rules.Load(path, text)
}
