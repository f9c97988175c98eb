package federation

import "time"

// What only tests of attacks see or do.

// ForgetSignatures does what a flood of signed requests would.
func (n *Node) ForgetSignatures() { n.replays.Purge() }

// AgeKeys makes the keys that signed requests older than they are.
func (n *Node) AgeKeys(by time.Duration) {
	for _, id := range n.signers.Keys() {
		if k, ok := n.signers.Peek(id); ok {
			k.fetched = k.fetched.Add(-by)
			n.signers.Add(id, k)
		}
	}
}

// Signers tells how many keys of strangers are remembered, and about how many bytes of what they sent.
func (n *Node) Signers() (keys, size int) {
	for _, k := range n.signers.Values() {
		a := k.actor
		for _, s := range []string{a.ID, a.Type, a.Name, a.Summary, a.PreferredUsername, a.Inbox, a.SharedInbox, a.Outbox, a.Followers, a.Log, a.Head} {
			size += len(s)
		}
		for _, w := range a.Writers {
			size += len(w)
		}
		for _, p := range a.PublicKeys {
			size += len(p.ID) + len(p.Owner) + p.Public.Size()
		}
		for _, m := range a.Methods {
			size += len(m.ID) + len(m.Controller) + len(m.Public)
		}
		size += len(a.Raw) + k.public.Size()
		keys++
	}
	return keys, size
}

// ShortenReading sets how long a body may take.
func (n *Node) ShortenReading(to time.Duration) { n.bodyTime = to }

// Outlets is how many inboxes are delivered to.
func (n *Node) Outlets() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.outlets)
}

// RoomOfOrigin sets how many followers of a list one server may have.
func (n *Node) RoomOfOrigin(to int) { n.maxOfOrigin = to }

// ForgetPaces lets everybody send as if they had not sent before.
func (n *Node) ForgetPaces() {
	n.paces.Purge()
	n.letterPaces.Purge()
	n.disputePaces.Purge()
}
