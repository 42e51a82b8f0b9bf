"""Certificates from an authority, by ACME (RFC 8555).

    renewal      when each certificate is ordered, and what serves until it is there
    renewal_info when the authority suggests to renew (RFC 9773)
    order        one order, on a thread of its own, by the library `acme`
    network      its requests, sent again where a nonce is refused
    advice       errors of an order, in words that say what to do
    schedule     times: renewal, and the next try after a failure
    turns        one order at a time, while one process takes the place of another
    challenges   answers to the authority's HTTP-01 and TLS-ALPN-01 challenges
    keys         keys, requests and certificates of our own
    folder       what is kept beside the database

The libraries `acme` and `requests` are imported by the first order only.
"""
