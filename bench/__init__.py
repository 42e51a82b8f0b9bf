"""The bench: relay measured beside its rivals, with the same upstream, load and core.

How a run reads, from the top:

- `__main__`   options in, exit status out
- `scenarios`  the scenarios by name, and the order of their rounds, in which rivals alternate
- `rounds`     rounds of time and CPU: JSON answers, equal rate, streams, latency, first event
- `open_loop`  rounds of an open loop: the most that a proxy takes in time, stream starts
- `crowds`     rounds of many streams: silent ones, live ones, gaps between events
- `handovers`, `quota`, `agents`   rounds of what only a relay does
- `scale`      curves: how a cost grows with a size
- `memory`     rounds of memory: at rest, live streams, bodies, idle connections, slow readers
- `stage`      upstreams, rivals and settings that a round finds ready, and how it reads costs
- `rivals`     the proxies, one module each: direct, nginx, and builds of relay
- `upstreams`  the upstreams behind them: the simulator, and answers recorded from it
- `replay`     the program that sends recorded octets
- `dialects`   requests, and the marks of a complete answer: Messages, chat, Responses
- `bodies`     request bodies of a wanted size
- `loadgen`    the clients of JSON answers: a closed loop
- `programs`   where load generators of other makers are found
- `wrk`        wrk in their place, which keeps nginx busy
- `h2load`     h2load, the same for HTTP/2
- `oha`        oha, for an open loop
- `pacing`     requests at an even rate, timed from when they were due
- `headroom`   whether the load was the limit, so that a round is refused
- `first`      the client of the first event
- `streams`    the clients of streams: every event counted, and a reader that stops reading
- `http2`      the clients of HTTP/2
- `ticking`, `stamps`  an upstream whose events carry their time, and its clients
- `conversations`  what agents say, in each dialect
- `filling`    databases with many keys, or much usage
- `certificate`  of the rivals that speak TLS
- `http`       single requests that are not measured
- `process`    processes on a core, and their costs as /proc has them
- `rows`       the lines of the table, and the goals
- `timing`     how long a run takes, and `progress`, how much of it is left
- `report`     figures, ratios, verdicts and notes from rounds
- `curves`     how a figure grows with a size
- `groups`     scenarios in groups, each with a sentence
- `tables`     figures on the screen
- `stored`     result files
- `board`      the figures by the definitions of onthebench.ai
- `page`       a run as HTML, with `plots`
- `comparison` a run beside an older one
- `reporting`  what a run shows, and `python -m bench report`
- `profile`    costs by function and by part, with `flames` and `allocations`
- `cost`       the gate: instructions per request, against a record

Everything stays on 127.0.0.1: the proxy has one core for itself, the clients and the upstream
share another. Run it with `python -m bench` or `make bench`; relay/docs/bench.md explains it.
"""
