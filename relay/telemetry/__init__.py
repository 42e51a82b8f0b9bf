"""What the operator sees of requests: the access log."""
