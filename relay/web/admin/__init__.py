"""The pages of administrators, below /admin. Nobody else learns that they are there.

Each module has the pages of one topic, as in `relay.web`. Every change is in the
audit log: by `Visit.acting`, or by `audited`.
"""

from typing import Final

from relay.web.admin import (
    announcements,
    audit_log,
    backups,
    codes,
    failures,
    live_requests,
    models,
    overview,
    payments,
    people,
    person,
    settings,
    simulator,
    upstream_transfer,
    upstreams,
)

TOPICS: Final = (
    overview, people, person, upstream_transfer, upstreams, models, simulator, live_requests,
    failures, backups, audit_log, settings, codes, payments, announcements,
)  # fmt: skip
