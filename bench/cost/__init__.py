"""The gate on the cost of a request: instructions counted by callgrind, against a record.

A time depends on the machine and on its other work; a number of instructions does not. So this gate
has a margin of 3 % where a bench would need 30.

- `__main__`   options in, exit status out
- `count`      one build of the relay: how many requests make a count
- `lockstep`   the caller and the upstream, which take turns
- `callgrind`  the process under callgrind, its marks and its dumps
- `functions`  a dump's functions, for a profile
- `launcher`   the program that runs in it: marks, and timers that fire on demand
- `baseline`   the records, and the verdict on new counts
"""
