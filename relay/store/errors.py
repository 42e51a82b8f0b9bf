"""Failures of the database, for all modules of the store."""


class StoreError(Exception):
    """The database cannot be used; the message is one line for the operator."""


class BusyError(StoreError):
    """Another connection is writing; try again in a moment."""
