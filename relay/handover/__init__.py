"""A relay hands over to another process: listening sockets, limits, the journal.

    channel  messages and descriptors between two processes
    offer    the process that serves, until it leaves
    take     the process that takes its place
    borrow   requests of the old process that the new one admits

The order:

1. The new process connects to the socket beside the database, gets the listening sockets, and
   prepares everything that needs no database.
2. `freeze`: the old one stops accepting and admitting, writes its journal to the end, and sends
   what its ledger holds. New connections wait in the kernel's queue.
3. `loaded`: the new one has opened the database. The old one gives it the database's lock (`go`)
   and leaves; or, if it has waited for too long, it goes on itself.
4. The old one's requests finish there. What they used goes to the new one, which alone writes.
   A request that the old one has yet to admit is admitted by the new one.
5. If the old process dies, the new one settles its requests as after a crash.
"""
