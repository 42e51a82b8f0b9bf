"""HTTP/2 without sockets: frames that a client sends, and what the engine makes of them."""
