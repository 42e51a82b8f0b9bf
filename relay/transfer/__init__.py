"""Installs that move to another machine, and accounts that come from other relays.

    sealed      a stream encrypted with a passphrase
    references  the files that a relay.toml names, and their new names
    install     everything of an install in one file, and back
    sql_dump    the rows of a dump of SQL text
    foreign     accounts, keys and upstreams of another relay
    sources     the tables of new-api, one-api, sub2api and LiteLLM
    importing   the choice of accounts and keys, and reasons for the rest

They write files and the database; a server sees the result at its next start or change. Nothing
here prints: `relay.cli` does.
"""


class TransferError(Exception):
    """It cannot be done; the message is one line that says what to do instead."""
