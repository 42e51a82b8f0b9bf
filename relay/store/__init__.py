"""Everything that outlives the process, in one SQLite file. Nothing above sees SQL.

executor          one thread for calls from the event loop
turns             whose turn on that thread it is, and whether the loop may write
database          opens and migrates the file, runs statements and transactions
migrations/       the schema, script by script
ids               ids that count up, on one node or several
claims            acts that may happen once, although several nodes could do them
replication/      rows that several nodes share
audit             who changed what, in the transaction of the change
events            what happened, for signed webhooks
users, keys       accounts and their API keys
periods           plans for a time
adjustments       changes of windows that wait for the running server
codes             codes that people redeem, and invitations
announcements     texts that all people read, maintenance and incidents
answers           how models have answered, by day
balance           credits, charges and statements
usage             sums, single requests and their pruning
pauses            upstreams that the operator paused
responses         responses kept for the Responses API, in memory or encrypted
server_secret     the server's own random key
change_watch      notices changes to keys, users and credits by other processes
records           the journal's entries
journal           group commit of requests; `batch` is one row of it
unfolder          brings those rows into their tables in time; `unfold` has its transactions
recovery          what a crash left behind
space             disk space, measured and given back
backup            a copy of the file while it is in use
scheduled_backup  backups that a server makes by itself
object_storage    a backup's copy in S3-compatible storage
foreign, imports  another program's SQLite file; accounts that come from elsewhere
restore           a backup in the place of the database
"""
