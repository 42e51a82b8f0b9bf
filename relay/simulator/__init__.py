"""A simulated upstream: as strict as the real Messages API, and as faulty as one likes.

The demo, the tests and the bench all run against it. It needs no model and no network;
the same request gets the same answer.

    app           the handler: paths, credentials, order of checks, `/simulate/*` control
    strict        what is refused: headers, fields, parameters        (pure)
    conversation  what is refused: roles, blocks, tool pairing        (pure)
    media         what is refused: sources of images and documents    (pure)
    schema        what is refused: schemas that answers are held to   (pure)
    refusal       a refusal as a value                                (pure)
    models        which models there are and what each accepts        (pure)
    seal          signatures of thinking blocks                       (pure)
    answer        what is said: text, thinking, tool calls            (pure)
    toolcall      which tool is called, with what arguments           (pure)
    search        the server tool web_search, and answers that cite   (pure)
    words         filler texts of a wanted length                     (pure)
    cache         input tokens, and the prompt cache's share of them  (pure)
    events        an answer as JSON or as the events of a stream      (pure)
    script        the `x-simulate` header as a value                  (pure)
    faults        what a fault does on the wire
    pacing        streams of so many events a second
    journal       what was asked, for `GET /simulate/requests`

A request is steered by its `x-simulate` header, a list of `name=value` separated by `;`:

    tokens=200   length of the answer, a text delta each
    bytes=8000   exact size of the answer's text
    pace=25      events a second; 0 is as fast as possible
    delay=0.5    seconds before the response head
    thinking=1   think even if not asked to
    tool=NAME    call that tool; tools=2 parallel calls of it
    stop=NAME    end with this stop_reason: end_turn, max_tokens, pause_turn,
                 model_context_window_exceeded or refusal, which says nothing
                 unless tokens= or bytes= wants words before it
    seed=TEXT    other words
    split=7      write head and body in pieces of so many bytes
    fault=NAME   see `script.FAULTS`; at=K the event (of a stream) or byte (of a JSON
                 body) before which it strikes; status=529 and retry-after=3 for `status`

Asked to "search for" something and given web_search_20250305, it searches, and cites.

Of these, count_tokens knows `status` alone. A client that cannot send headers has its next
requests to /v1/messages steered by `PUT /simulate/script`, a JSON list of such texts.
"""
