"""The findings of the hostile review, each with the tests that attack it again."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`before`: its effect when it was found. `tests`: beginnings of node ids; a test with
    parameters may be named with the first ones."""

    name: str
    attack: str
    before: str
    tests: tuple[str, ...]

    def has(self, node_id: str) -> bool:
        """Whether a test is one of its attacks."""
        return node_id.startswith(self.tests)

    @property
    def files(self) -> set[str]:
        """The files of its tests."""
        return {test.partition("::")[0] for test in self.tests}


_ATTACKS = "tests/attacks/test_"
_GATEWAY = "tests/gateway/test_"
_READING = f"{_ATTACKS}reading.py::test_no_request_stops_another"
_STORED = f"{_ATTACKS}stored_conversations.py::test_"
_VERDICTS = f"{_ATTACKS}verdicts.py::test_"
_REFUSED = f"{_VERDICTS}a_refused_request_harms_no_other_caller"
_BILLED = f"{_GATEWAY}settlement_prices.py::test_what_an_upstream_bills_is_charged"
_WORDS = f"{_GATEWAY}answer_words.py::test_"
_REVOKED = f"{_ATTACKS}revoked_keys.py::test_a_key_is_looked_up_again"
_TWICE = f"{_ATTACKS}second_readings.py::test_a_body_with_two_readings_is_refused_on_every_path"
_BOUNDS = f"{_ATTACKS}bounds.py::test_"
_WITHOUT_JOURNAL = (
    "tests/durability/test_metering_disk.py::"
    "test_without_a_journal_work_is_refused_and_streams_go_on"
)
_STATED = f"{_ATTACKS}stated_limits.py::test_"

FINDINGS = [
    Finding(
        "C1",
        "pieces and places of thinking",
        "the loop stood still for 4.8 s",
        (f"{_READING}[pieces", f"{_READING}[places"),
    ),
    Finding(
        "C2",
        "a request that its vendor refuses: 429, 403, 404, a close",
        "every caller refused for 10 to 50 min",
        (
            f"{_REFUSED}[fast-mode-by-its-words",
            f"{_REFUSED}[a-firewalls-403",
            f"{_REFUSED}[a-file",
            f"{_REFUSED}[a-closed",
        ),
    ),
    Finding(
        "H1",
        "hanging up before each answer",
        "18,000 requests on a plan of 40",
        (f"{_ATTACKS}money.py::test_whoever_hangs_up_each_time_is_stopped",),
    ),
    Finding(
        "H2",
        "leaving a stream before its usage",
        "40,000 characters for $0.003",
        (f"{_GATEWAY}settlement_left.py::test_text_that_was_passed_on_is_paid_for",),
    ),
    Finding(
        "H3",
        "20 dear requests at once on ten cents, in any spelling",
        "$0.10 became -$53.90",
        (f"{_ATTACKS}money.py::test_twenty_dear_requests_on_ten_cents_are_refused",),
    ),
    Finding(
        "H4",
        "iterations, one-hour cache, speed, geography, searches",
        "$0.08 charged of $0.59",
        (
            *(f"{_BILLED}[{one}-messages" for one in ("both caches", "searches", "geography")),
            *(f"{_BILLED}[{one}-messages" for one in ("tier", "fallback")),
        ),
    ),
    Finding(
        "H5",
        "25 unfinished uploads; 99,000 members; 30 MiB of metadata",
        "+1,090 MiB, +781 MiB, 45 MiB sent",
        (
            f"{_BOUNDS}unfinished_uploads_of_one_key_hold_its_share_alone",
            f"{_READING}[allowed members",
            f"{_STORED}a_short_request_has_no_answer_of_many_mebibytes",
        ),
    ),
    Finding(
        "H6",
        "bombs, small chunks, empty keys, refusals without end",
        "1.35 s of everybody's time, uncounted",
        (f"{_READING}[a bomb]", f"{_READING}[small chunks", f"{_GATEWAY}checked_first.py::"),
    ),
    Finding(
        "H7",
        "counting a long stored conversation 20 times",
        "13 s in which nobody was served",
        (f"{_STORED}counting_a_long_conversation_many_times_stops_nobody",),
    ),
    Finding(
        "H8",
        "a name whose look-up hangs",
        "all upstreams out of reach",
        ("tests/net/upstream/test_resolver.py::test_a_hanging_name_blocks_no_other_upstream[5",),
    ),
    Finding(
        "H9",
        "400 idle strangers at 256 descriptors",
        "callers reset, journal not opened",
        (f"{_ATTACKS}descriptors.py::test_callers_are_served_beside_idle_strangers[octets0",),
    ),
    Finding(
        "H10",
        "standard error that nobody reads",
        "the relay stopped for good",
        (f"{_ATTACKS}stderr.py::test_an_unread_pipe_stops_nothing",),
    ),
    Finding(
        "M1",
        "a key revoked while its body comes, or while it waits",
        "answered, hours later",
        (
            f"{_REVOKED}_once_its_body_is_complete[length-/v1/messages",
            f"{_REVOKED}_when_its_turn_comes[/v1/messages-",
        ),
    ),
    Finding(
        "M2",
        "the key in other fields and in the query",
        "the key went upstream",
        (
            f"{_GATEWAY}headers.py::test_the_upstream_gets_only_end_to_end_and_relay_fields",
            "tests/wire/test_headers.py::test_a_field_that_repeats_the_key_stays_here",
            "tests/wire/test_headers.py::test_a_query_that_repeats_the_key_stays_here",
        ),
    ),
    Finding(
        "M3",
        "errors that repeat the credential or speak of the account",
        "the credential came to callers",
        (
            f"{_WORDS}no_error_repeats_the_credential[400",
            f"{_WORDS}no_error_repeats_the_credential[500",
            f"{_WORDS}no_error_speaks_of_the_operators_account[billing_error-",
            f"{_WORDS}no_stream_says_what_errors_do_not[api_error-odd",
            f"{_WORDS}no_shape_of_an_error_in_a_stream_leaks",
        ),
    ),
    Finding(
        "M4",
        "a model given twice, with escapes, in capitals",
        "a model that is not served",
        (f'{_TWICE}[model-"model"', f'{_TWICE}[model-"Model"'),
    ),
    Finding(
        "M5",
        "used connections that die late; a goodbye 408",
        "sent 4 times; 54 of 200 saw the 408",
        (
            f"{_VERDICTS}a_connection_that_dies_late_is_a_failure",
            f"{_VERDICTS}a_408_is_never_shown",
            f"{_VERDICTS}a_body_that_breaks_two_upstreams_goes_to_no_third",
        ),
    ),
    Finding(
        "M6", "all places of the queue", "others refused at once", (f"{_ATTACKS}queue_shares.py::",)
    ),
    Finding(
        "M7",
        "ten responses of 95,000 items",
        "everybody's responses pushed out",
        (f"{_STORED}one_account_does_not_push_out_anothers_responses",),
    ),
    Finding(
        "M8",
        "SIGHUP, SIGUSR1, SIGUSR2",
        "the process ended, streams cut",
        (f"{_ATTACKS}stderr.py::test_reload_signals_leave_streams_alone",),
    ),
    Finding(
        "M9",
        "the admin listener without its proof",
        "any local user was let in",
        (
            "tests/api/test_admin_access.py::test_without_the_token_tcp_reveals_nothing[GET",
            "tests/api/test_admin.py::test_the_public_listener_serves_no_admin_path",
        ),
    ),
    Finding(
        "M10",
        "TLS handshakes that do not go on",
        "closed after 60 s",
        (f"{_ATTACKS}descriptors.py::test_unfinished_handshakes_end_and_are_counted",),
    ),
    Finding(
        "M11",
        "an upstream that never answers",
        "600 s for every caller",
        (f"{_VERDICTS}only_one_caller_meets_a_silent_upstream",),
    ),
    Finding(
        "M12",
        "a clock set back by an hour",
        "20 s became 3,620 s",
        (f"{_VERDICTS}a_stepped_clock_changes_no_cooldown",),
    ),
    Finding(
        "L1",
        'a stream that says "message_stop" without ending',
        "a cut stream passed for complete",
        (f"{_GATEWAY}answers.py::test_only_its_last_event_ends_a_stream",),
    ),
    Finding(
        "L2", "another's prompt in the cache: stated", "seen", (f"{_STATED}a_limit_is_stated[L2",)
    ),
    Finding("L3", "a name in the log: stated", "seen", (f"{_STATED}a_limit_is_stated[L3",)),
    Finding(
        "L4",
        "request ids that count others",
        "ids counted up",
        (f"{_GATEWAY}headers.py::test_request_ids_tell_nothing_of_each_other",),
    ),
    Finding(
        "L5",
        "a database that cannot be written",
        "generated, then refused",
        (
            f"{_WITHOUT_JOURNAL}[read_only",  # the honest caller's rows would change a full disk
            f"{_WITHOUT_JOURNAL}[locked",
        ),
    ),
    Finding("L6", "streams that nobody reads", "288 KiB each", (f"{_ATTACKS}unread_streams.py::",)),
    Finding(
        "L7",
        "addresses in prompts: stated",
        "fetched where the upstream is",
        (f"{_STATED}a_limit_is_stated[L7",),
    ),
    Finding(
        "L8",
        "three keys for three times the plan",
        "three times the plan",
        (f"{_STATED}shipped_plans_are_shared",),
    ),
    Finding(
        "L9",
        "streams over TLS without close_notify",
        "502, an error after the last event",
        ("tests/net/upstream/test_unclean_ends.py::test_a_stream_with_its_last_event_is_complete",),
    ),
]
