"""The endpoints: `handler` around all of them, `router` from path to endpoint, `endpoints`.

`models` and `codex_catalogue` list models, `stored_responses` shows kept responses, `admin` is
the operator's own listener.
"""
