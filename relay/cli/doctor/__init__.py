"""`relay doctor`: looks for whatever keeps a relay from working, and says what to do.

    findings   one finding: fault, warning or pass
    machine    files, permissions, disk, descriptors, the kernel's queue
    upstreams  names, TLS, clock, the key with one request and one stream
    public     connections to the public address
    buffering  whether a proxy collects a stream before it passes it on
    front      the public address, and what a proxy before it must allow
    command    the command: runs them all, prints, and exits

Must not know the running relay's insides: it looks from outside, as clients do.
"""
