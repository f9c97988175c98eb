package server

import "github.com/prometheus/client_golang/prometheus"

// windowState reads the numbers of the recent window when they are asked for.
type windowState struct{ s *Server }

var (
	windowEntries   = prometheus.NewDesc("tocsin_window_entries", "Different pictures in the recent window.", nil, nil)
	windowUploads   = prometheus.NewDesc("tocsin_window_uploads", "Uploads in the recent window, each picture as often as it came.", nil, nil)
	windowBytes     = prometheus.NewDesc("tocsin_window_bytes", "Memory of the recent window, about.", nil, nil)
	windowWaiting   = prometheus.NewDesc("tocsin_window_waiting", "Uploads that wait to be written.", nil, nil)
	windowBehind    = prometheus.NewDesc("tocsin_window_behind", "Statements that are not compared with the recent window yet.", nil, nil)
	windowOpen      = prometheus.NewDesc("tocsin_window_hits_open", "Pictures of the recent window with a hit that is not withdrawn.", nil, nil)
	windowDropped   = prometheus.NewDesc("tocsin_window_dropped_total", "Uploads that were not kept because too many waited.", nil, nil)
	windowHits      = prometheus.NewDesc("tocsin_window_hits_total", "Uploads of the past that were found to be banned.", nil, nil)
	windowWithdrawn = prometheus.NewDesc("tocsin_window_withdrawn_total", "Hits of which nothing was left.", nil, nil)
	quarantineOpen  = prometheus.NewDesc("tocsin_quarantined_statements", "Statements that do not act until a person has decided.", nil, nil)
	breakersOpen    = prometheus.NewDesc("tocsin_breakers_open", "Circuit breakers that are open.", nil, nil)
)

// newWebhookCounter counts deliveries of webhooks.
func newWebhookCounter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "tocsin", Name: "webhooks_total", Help: "Attempts to tell somebody of a hit, by result.",
	}, []string{"result"})
}

// Describe implements prometheus.Collector.
func (c *windowState) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *windowState) Collect(ch chan<- prometheus.Metric) {
	tell := func(kind prometheus.ValueType, d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	tell(prometheus.GaugeValue, breakersOpen, float64(len(c.s.breaker.Open())))
	w := c.s.cfg.Window
	if w == nil {
		return
	}
	st := w.Stats()
	tell(prometheus.GaugeValue, windowEntries, float64(st.Entries))
	tell(prometheus.GaugeValue, windowUploads, float64(st.Uploads))
	tell(prometheus.GaugeValue, windowBytes, float64(st.Bytes))
	tell(prometheus.GaugeValue, windowWaiting, float64(st.Waiting))
	tell(prometheus.GaugeValue, windowBehind, float64(st.Behind))
	tell(prometheus.GaugeValue, windowOpen, float64(st.Open))
	tell(prometheus.GaugeValue, quarantineOpen, float64(len(w.Quarantined(false))))
	tell(prometheus.CounterValue, windowDropped, float64(st.Dropped))
	tell(prometheus.CounterValue, windowHits, float64(st.Hits))
	tell(prometheus.CounterValue, windowWithdrawn, float64(st.Withdrawn))
}
