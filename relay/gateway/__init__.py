"""The path of a request through the relay. Read `relay` first, then what it calls, in order.

`entry` knows the paths; `caller` who asks; `routes` which upstream serves a model; `upstreams`
how to speak to one; `dispatch` sends the request and judges the answer's head; `models` lists.
"""
