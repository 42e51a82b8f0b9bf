"""The pages for people: accounts and the dashboard, on the relay's own server.

    mount      leads requests here; loads everything else at the first page request
    site       the application: routes, guard, error pages
    pages      who may see a page, and what every request is checked for
    visit      one request of a browser, as a page sees it
    security   requests of other sites, header fields, cookies
    languages  the texts, in English and Chinese
    assets     style, scripts and vendored files under hashed names

Every other module has the pages of one topic: a function for each, registered with `Pages`. The
rules for accounts are in `relay.accounts`.
"""
