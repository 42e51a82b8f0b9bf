"""The command line. `main` is the entry point."""

from relay.cli.program import main

__all__ = ["main"]
