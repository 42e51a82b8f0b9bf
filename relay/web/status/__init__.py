"""The public status: `board` finds how each model answers, now and on the days before, and
`strips` draws the days. The page itself is `relay.web.status_pages`.
"""
