"""The path of a request through the relay. Read `relay` first, then what it calls, in order.

`entry` knows the paths; `caller` who asks; `routes` which upstreams serve a model; `upstreams`
chooses one of them, by its `health` and by the `sessions`; `dispatch` sends the request there,
and to the next if the `attempt` failed, which `trouble` judges; `answer` passes on what came, and
`keepalive` fills the silence before it. `metering` counts; `models` lists, for Codex by its
`codex` catalogue; `admin` is for the operator.

A request of another dialect is a `translation`: `chat` or `responses`, whose answer `converted`
passes on, and `stored` keeps if the caller may have that.
"""
