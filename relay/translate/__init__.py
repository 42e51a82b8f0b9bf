"""What bodies say, read out of them without I/O: `peek` for requests, `usage` for answers."""
