"""What the operator sees: one access line a request (`log`)."""
