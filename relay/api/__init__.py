"""The endpoints of both listeners.

`handler` wraps every endpoint, `router` maps paths to `endpoints`. `models` and `codex_catalogue`
list models, `stored_responses` serves stored responses, `admin` is the operator's listener.
"""
