"""The bench: relay measured beside nginx, with the same upstream, load and core.

How a run reads, from the top:

- `__main__`   options in, exit status out
- `scenarios`  what is measured and in which order (rounds alternate between the rivals)
- `stage`      what stands ready for a round, and how costs are read off it
- `rivals`     what is measured: nginx, relay, and the upstream behind both
- `dialects`   what clients ask, and how they know a whole answer: messages, chat, Responses
- `loadgen`    the clients of JSON: a closed loop
- `streams`    the clients of SSE: every event counted, and a reader that stops reading
- `replay`     a cheap upstream for the closed loop: one answer of the simulator, again and again
- `process`    processes on a core, and what /proc tells about them
- `report`     figures and ratios as a table and as JSON

Everything stays on 127.0.0.1: the proxy has one core for itself, the clients and the upstream
share another. Run it with `python -m bench` or `make bench`.
"""
