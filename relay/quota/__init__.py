"""What a caller may use, and what they have used: limits, money, and how both are told.

Pure: time comes in as an argument, state goes out as plain tuples. `ledger` is the way in;
`plans` is compiled once from the settings, `headers` says on every answer what is left,
`refusal` says it where nothing is.
"""
