package federation

// What only tests of attacks see or do.

// ForgetSignatures does what a flood of signed requests would.
func (n *Node) ForgetSignatures() { n.replays.Purge() }
