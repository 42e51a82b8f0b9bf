"""Reports of users of comparable gateways, each reduced to an input of our own.

A test's id begins with the report's: `relay/docs/clients.md` lists what clients do.
"""
