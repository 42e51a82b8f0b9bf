"""The upstreams a request can go to. Nothing here knows a request beyond its routing.

`routes` maps a model to targets, `selection` chooses the target that is due, `leases` keeps the
places and the queue, `affinity` the upstream that a conversation is with. `vendor_errors` judges an
upstream's failure, `health` adds verdicts up, `plan_polling` asks vendors for the quota left.
"""
