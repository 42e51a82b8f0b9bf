"""Real clients against the relay: a row for each client and dialect, a cell for each use.

`make clients` installs each client from its lock file, runs it, and writes the table in
relay/docs/clients.md.
"""
