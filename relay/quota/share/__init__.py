"""One window that several nodes draw from: each holds a lease, a slice of it.

A node admits from its lease in one synchronous step and asks for more before that is used up, so a
request rarely waits for another process. `SharedWindow` is the side of the one that owns the
window, `LeasedWindow` the side of a node, and `claims` has the two messages between them.

The sum of all leases never exceeds the window, whatever is lost, late or sent twice: a node never
goes beyond the last ceiling that it was granted, and lowers it before it says so. A lease whose
node is silent for too long counts as used until the node reports again.

Pure: moments come in as arguments, messages go out as values.
"""
