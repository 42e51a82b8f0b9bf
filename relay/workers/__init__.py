"""Several processes of one relay on one machine, with one ledger and one journal.

    link                messages between the owner and a worker
    nursery             forks workers
    title               the names of the processes in ps and top
    slots               admission in a worker, from reservations made ahead in the owner's ledger
    link_journal        the journal of a worker: its entries go to the owner
    lending             the owner's side of slots, for one worker
    loans               how such reservations stand in the limits until a request uses them
    admissions          admission in the owner; its answers to workers
    room                upstreams' own limits that have room again
    worker_admissions   admission in a worker
    owner               the workers, as the owner sees them
    worker              a worker's process
    pool_sharing        upstreams, their health, places and costs, and sessions in all processes
    figures             metrics, requests in flight and failures of all processes
    forward             the paths that a worker serves; all others go to the owner
    owner_connections   a worker's connections to the owner, for these
    inner_server        the owner's side of them
    inner_exchange      a forwarded request, as the owner's endpoints see it
    inner_frames        the octets between them
    remote_responses    responses that the owner keeps in memory
    refreshing          changes of keys and plans, in force in all processes at once

The **owner** is the relay as it is without workers: it has the ledger and the journal, and serves
requests, too. A **worker** serves requests beside it, on the same listening sockets. It admits a
request from a **slot**: an ordinary reservation that the owner made ahead, and that goes back if it
is not used.
"""
