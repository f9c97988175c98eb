package server

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"google.golang.org/grpc/codes"

	"github.com/tocsin-fed/tocsin/federation"
	"github.com/tocsin-fed/tocsin/hashlist"
	"github.com/tocsin-fed/tocsin/hashlist/imagehash"
)

// metrics are what /metrics tells, in a registry of the server's own so that
// two servers in one process do not meet.
type metrics struct {
	registry *prometheus.Registry

	lookups   *prometheus.CounterVec   // by verdict
	hooks     *prometheus.CounterVec   // by hook and reason
	hookTime  *prometheus.HistogramVec // by hook
	decode    *prometheus.HistogramVec // by format
	failures  *prometheus.CounterVec   // files that could not be hashed, by reason
	cached    *prometheus.CounterVec   // by hit or miss
	calls     *prometheus.CounterVec   // by method and code
	callTime  *prometheus.HistogramVec // by method
	held      prometheus.Gauge
	strangers prometheus.Counter
	panics    prometheus.Counter
	unaudited prometheus.Counter

	reviewsLost    *prometheus.CounterVec // by kind
	reviewsDecided *prometheus.CounterVec // by kind, choice and outcome

	opinions    *prometheus.CounterVec   // by service and result
	opinionTime *prometheus.HistogramVec // by service
}

// seconds are the buckets of durations: a lookup takes microseconds, a decoder
// may take ten seconds.
var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

func newMetrics(s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "tocsin", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "tocsin", Name: name, Help: help, Buckets: seconds}, labels)
	}
	m := &metrics{
		registry:       prometheus.NewRegistry(),
		lookups:        counter("lookups_total", "Files and hashes looked up, by verdict.", "verdict"),
		hooks:          counter("hook_answers_total", "Uploads that a platform asked about, by what was answered and why.", "hook", "answer", "reason"),
		hookTime:       histogram("hook_seconds", "Time from the head of a hook's request to its answer.", "hook"),
		decode:         histogram("decode_seconds", "Time spent on decoding a file, by format.", "format"),
		failures:       counter("undecoded_total", "Files that could not be hashed, by reason.", "reason"),
		cached:         counter("cache_lookups_total", "Files looked for in the cache of hashes.", "result"),
		calls:          counter("grpc_calls_total", "gRPC calls, by method and status code.", "method", "code"),
		callTime:       histogram("grpc_seconds", "Time of gRPC calls, by method.", "method"),
		reviewsLost:    counter("reviews_lost_total", "What should have waited for a decision and found the queue full, by kind.", "kind"),
		reviewsDecided: counter("reviews_decided_total", "Decisions on what waited, by kind, choice and outcome.", "kind", "choice", "outcome"),
		opinions:       counter("opinions_total", "Uploads of which a service elsewhere was asked, by what it said.", "service", "result"),
		opinionTime:    histogram("opinion_seconds", "Time for which an upload waited for a service elsewhere.", "service"),
		held: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: "tocsin", Name: "uploads_held", Help: "Files held in memory now.",
		}),
		strangers: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tocsin", Name: "unauthenticated_total", Help: "Calls and hooks without a good token.",
		}),
		unaudited: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tocsin", Name: "unaudited_total", Help: "Verdicts that could not be written into the audit log.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "tocsin", Name: "panics_total", Help: "Panics that were caught: each is a bug.",
		}),
	}
	// What will be watched for is there from the start, at zero.
	for v := hashlist.VerdictAllow; v <= hashlist.VerdictReject; v++ {
		m.lookups.WithLabelValues(v.String())
	}
	build := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "tocsin", Name: "build_info", Help: "1, with the version as label.",
		ConstLabels: prometheus.Labels{"version": strings.ToValidUTF8(s.cfg.Version, "?")},
	}, func() float64 { return 1 })
	m.registry.MustRegister(m.lookups, m.hooks, m.hookTime, m.decode, m.failures, m.cached, m.calls, m.callTime, m.held,
		m.strangers, m.panics, m.unaudited, m.reviewsLost, m.reviewsDecided, m.opinions, m.opinionTime, build, &state{s}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) verdict(v hashlist.Verdict) { m.lookups.WithLabelValues(v.String()).Inc() }

func (m *metrics) media(v *imagehash.Media, err error) {
	if err == nil {
		m.decode.WithLabelValues(v.Format).Observe(v.DecodeTime.Seconds())
		return
	}
	m.failures.WithLabelValues(failure(err)).Inc()
}

// failure names why a file could not be hashed.
func failure(err error) string {
	switch {
	case errors.Is(err, imagehash.ErrUndecodable):
		return "undecodable"
	case errors.Is(err, imagehash.ErrVideo):
		return "video"
	case errors.Is(err, imagehash.ErrTooLarge):
		return "too_large"
	case errors.Is(err, imagehash.ErrTimeout):
		return "timeout"
	}
	return "trouble"
}

func (m *metrics) call(method string, code codes.Code, took time.Duration) {
	m.calls.WithLabelValues(method, code.String()).Inc()
	m.callTime.WithLabelValues(method).Observe(took.Seconds())
}

// state reads gauges from their sources when they are asked for.
type state struct{ s *Server }

var (
	indexHashes    = prometheus.NewDesc("tocsin_index_hashes", "Distinct hashes in force.", []string{"algorithm"}, nil)
	indexLists     = prometheus.NewDesc("tocsin_index_lists", "Lists that are defined.", nil, nil)
	indexSeq       = prometheus.NewDesc("tocsin_index_seq", "Number of the last statement in the index.", nil, nil)
	workers        = prometheus.NewDesc("tocsin_decode_workers", "Decoder processes, by what they do now.", []string{"state"}, nil)
	workerEnds     = prometheus.NewDesc("tocsin_decode_worker_ends_total", "Decoder processes that ended.", []string{"how"}, nil)
	follows        = prometheus.NewDesc("tocsin_follows", "Lists of other nodes, by how far following them has come.", []string{"state"}, nil)
	followers      = prometheus.NewDesc("tocsin_followers", "Followers of this node's lists, by what was decided.", []string{"state"}, nil)
	peers          = prometheus.NewDesc("tocsin_peers", "Other servers, by how delivery to them goes.", []string{"state"}, nil)
	behind         = prometheus.NewDesc("tocsin_follow_behind", "Statements that publishers have shown and that are not taken over yet.", nil, nil)
	requests       = prometheus.NewDesc("tocsin_federation_requests_total", "Signed requests of other nodes, by what became of them.", []string{"result"}, nil)
	deliveries     = prometheus.NewDesc("tocsin_federation_deliveries_total", "Activities sent to other nodes, by whether they were taken.", []string{"result"}, nil)
	taken          = prometheus.NewDesc("tocsin_federation_statements_total", "Statements of other nodes that were taken over.", nil, nil)
	unknown        = prometheus.NewDesc("tocsin_federation_unknown_statements_total", "Statements of kinds that this program does not know.", nil, nil)
	reviewsWaiting = prometheus.NewDesc("tocsin_reviews", "What waits for a person's decision, by kind and state.", []string{"kind", "state"}, nil)
	reviewsOverdue = prometheus.NewDesc("tocsin_reviews_overdue", "What has waited for a decision longer than it should, by kind.", []string{"kind"}, nil)
	reviewsOldest  = prometheus.NewDesc("tocsin_reviews_oldest_seconds", "How long the oldest has waited for a decision, by kind; 0 if none waits.", []string{"kind"}, nil)
	queued         = prometheus.NewDesc("tocsin_decode_queue_seconds_total", "Time files waited for a decoder.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *state) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *state) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	counts := c.s.cfg.Lists.Counts()
	for _, a := range hashlist.Algorithms {
		gauge(indexHashes, float64(counts.Hashes[a]), a.String())
	}
	gauge(indexLists, float64(counts.Lists))
	gauge(indexSeq, float64(c.s.cfg.Lists.Seq()))
	st := c.s.cfg.Media.Stats()
	gauge(workers, float64(st.Busy), "busy")
	gauge(workers, float64(max(0, st.Running-st.Busy)), "idle")
	count(workerEnds, float64(st.Killed), "killed")
	count(workerEnds, float64(st.Crashed), "crashed")
	count(workerEnds, float64(st.Recycled), "recycled")
	count(queued, st.QueueTime.Seconds())
	if k := c.s.cfg.Sources; k != nil {
		collectSources(k, gauge)
	}
	if f := c.s.cfg.Federation; f != nil {
		collectFederation(f, gauge, count)
	}
	if c.s.cfg.Reviews != nil {
		c.s.collectReviews(gauge)
	}
}

// collectReviews counts what waits for a decision. Every kind is told, at zero too, so that a
// rule can watch for it.
func (s *Server) collectReviews(gauge func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(s.hard, 5*time.Second)
	defer cancel()
	counts, err := s.waitingReviews(ctx)
	if err != nil {
		return // no number is better than a wrong one: a rule can watch for that, too
	}
	for _, k := range hashlist.ReviewKinds {
		c, age := counts[k], 0.0
		if !c.oldest.IsZero() {
			age = max(0, time.Since(c.oldest).Seconds())
		}
		gauge(reviewsWaiting, float64(c.open), k.String(), "open")
		gauge(reviewsWaiting, float64(c.proposed), k.String(), "proposed")
		gauge(reviewsOverdue, float64(c.overdue), k.String())
		gauge(reviewsOldest, age, k.String())
	}
}

// collectFederation counts what this node has to do with others. Every state is told, at
// zero too, so that a rule can watch for it.
func collectFederation(f Federation, gauge, count func(*prometheus.Desc, float64, ...string)) {
	c := f.Counters()
	count(requests, float64(c.Accepted), "accepted")
	count(requests, float64(c.Refused-min(c.Replayed, c.Refused)), "refused")
	count(requests, float64(c.Replayed), "replayed")
	count(requests, float64(c.Ignored), "ignored")
	count(deliveries, float64(c.Delivered), "delivered")
	count(deliveries, float64(c.Failed), "failed")
	count(taken, float64(c.Statements))
	count(unknown, float64(c.UnknownKinds))
	byFollow, missing := map[federation.FollowState]int{}, 0.0
	for _, v := range f.Follows() {
		byFollow[v.State]++
		if v.State == federation.FollowAccepted && v.HeadSize > v.Position {
			missing += float64(v.HeadSize - v.Position)
		}
	}
	for i, name := range [...]string{"asked", "accepted", "refused", "ended", "diverged"} {
		gauge(follows, float64(byFollow[federation.FollowState(i+1)]), name)
	}
	gauge(behind, missing)
	byFollower := map[federation.FollowerState]int{}
	all, _ := f.Followers("") // it fails only for a list that is not there
	for _, v := range all {
		byFollower[v.State]++
	}
	for i, name := range [...]string{"asked", "approved", "rejected", "left"} {
		gauge(followers, float64(byFollower[federation.FollowerState(i+1)]), name)
	}
	var well, failing, retired int
	for _, v := range f.PeerStatuses() {
		switch {
		case v.Retired:
			retired++
		case !v.Failing.IsZero():
			failing++
		default:
			well++
		}
	}
	gauge(peers, float64(well), "well")
	gauge(peers, float64(failing), "failing")
	gauge(peers, float64(retired), "retired")
}
