"""The set-up scripts: `/setup.sh` and `/setup.ps1`, filled from the running settings.

`clients` is the one table of clients and what each needs; `script` puts it into the two templates
beside it. The `edit_*.awk` files are the editors of setup.sh.
"""
