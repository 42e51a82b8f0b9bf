"""One request on its way through the relay. Read `relay` first, then the modules that it calls.

`authentication` finds the caller, `metering` holds quota in an `admission`, a `dialect` reads the
request (`messages`, or `chat` and `responses` by way of `translated`), `dispatch` sends it to an
upstream and to the next if an `attempt` failed, and the dialect responds: `passthrough` as the
octets that came, `translated` written anew, both on top of `respond`. `keepalive` fills the silence
before and within an answer. `charge` is what an answer costs. `context` holds the facts known of a
request, `access_record` is the log line made of them, `catalog` has models, plans and prices,
`history` kept conversations.
"""
