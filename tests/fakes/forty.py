"""Plans with forty requests: what many processes admit of them is counted."""

FORTY = """
[[plan]]
id = "forty"
max_keys = 50
limits = [{ requests = 40, per = "5h" }]

[[plan]]
id = "stacked"
limits = [{ requests = 55, per = "5h" }, { requests = 40, per = "7d" }]

[[plan]]
id = "shared"
enforce = "account"
max_keys = 50
limits = [{ requests = 40, per = "5h" }]
"""
