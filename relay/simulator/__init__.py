"""A simulated upstream: as strict as the real Messages API, with faults on request.

The demo, the tests and the bench all run against it. It needs no model and no network;
the same request gets the same answer.

    app           the handler: paths, credentials, order of checks, `/simulate/*` control
    strict        rules for headers, fields and the model             (pure)
    parameters    rules for thinking, sampling, output                (pure)
    tools         rules for tool definitions and tool_choice          (pure)
    conversation  rules for roles, order of blocks, tool pairing      (pure)
    blocks        rules for single content blocks                     (pure)
    media         rules for sources of images and documents           (pure)
    schema        rules for schemas of structured output              (pure)
    refusal       an error answer as a value                          (pure)
    models        models and the features that each accepts           (pure)
    seal          signatures of thinking blocks                       (pure)
    answer        the answer: text, thinking, tool calls              (pure)
    toolcall      the choice of a tool, and its arguments             (pure)
    search        the server tool web_search, and answers that cite   (pure)
    words         filler texts of a given length                      (pure)
    cache         input tokens, and the prompt cache's share of them  (pure)
    events        an answer as JSON or as the events of a stream      (pure)
    script        the `x-simulate` header as a value                  (pure)
    faults        faults as octets on the wire
    pacing        streams with a fixed number of events per second
    journal       the latest requests, for `GET /simulate/requests`

A request is controlled by its `x-simulate` header, a list of `name=value` separated by `;`:

    tokens=200   length of the answer, with a text delta for each token
    bytes=8000   exact size of the answer's text in octets
    pace=25      events per second; 0 is as fast as possible
    delay=0.5    seconds before the response head
    thinking=1   think even if the request does not ask for it
    tool=NAME    call that tool; tools=2 parallel calls of it
    stop=NAME    end with this stop_reason: end_turn, max_tokens, pause_turn,
                 model_context_window_exceeded or refusal, which has no text
                 without tokens= or bytes=
    seed=TEXT    other words
    split=7      write head and body in pieces of so many octets
    fault=NAME   see `script.FAULTS`; at=K is the event of a stream, or the octet of a JSON
                 body, before which it strikes; status=529 and retry-after=3 for `status`

Asked to "search for" something and given web_search_20250305, it searches and cites.

count_tokens takes `status` alone. For a client that cannot send headers,
`PUT /simulate/script` with a JSON list of such texts controls the next requests to /v1/messages.
"""
