"""Alerts for the operator: a fault is reported once when it begins, and once when it is over.

rules     which change of state gives an alert (pure)
messages  an alert in the words and the form of each service (pure)
delivery  one attempt to send a message: HTTP or SMTP, on a thread
sources   the states: upstreams, journal, disk, certificates, backups
used_up   an event for each window that is used up
monitor   the tasks: states are read, alerts queued and sent, with retries and a cap

And for people: `threshold_mails` sends what `threshold_texts` says, once for each window.
"""
