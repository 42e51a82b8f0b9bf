"""The upstreams that a request can go to. Must not know more of a request than its routing.

`routes` maps a model to targets, `selection` chooses the target that is due, `leases` keeps places
and the queue, `affinity` binds conversations to upstreams. `vendor_errors` classifies an
upstream's failure, `health` adds verdicts up, `plan_polling` polls vendors for the quota left.
"""
