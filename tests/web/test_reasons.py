"""The relay's own sentences in Chinese: every one that the code can write, found in the code."""

import ast
import re
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import relay
from relay.config.vendors import shipped
from relay.net.upstream.connection import FailureKind
from relay.web.reasons import in_language, translated

ROOT = Path(relay.__file__).parent
# The modules whose sentences reach a page: errors of requests, states of upstreams, settings.
SHOWN = (
    "accounts/key_rules.py", "alerts", "clock.py", "config", "gateway", "net/memory_budget.py",
    "net/request_body.py", "net/upstream", "pool", "quota", "secret.py", "store/backup.py",
    "store/scheduled_backup.py", "transfer/settings_file.py", "transfer/upstream_tables.py",
    "translate", "wire/chunked.py", "wire/encoding.py", "wire/unfolding.py",
    "api/models.py", "api/stored_responses.py",
)  # fmt: skip
# Raised within the relay, and caught there: these words are for its own log at most.
NOT_SHOWN = re.compile(
    r"^(?:the start of no block|too many blocks at once|too much input at once"
    r"|a tool call without a name|a value that should be a text|half a character where"
    r"|other octets than were decoded|a summary without a word|an answer that is too long$"
    r"|an event that is no object|.* cannot be opened |a period is whole seconds"
    r"|This account is suspended|7 Ask the operator|\\A)"
)
SAMPLES = {  # of expressions that stand for words of the relay
    "_subject(plan)": "Plan Pro",
    "plan.title or f'plan {plan.name}'": "plan Pro",
    "limit.name": "400 requests per 5 hours",
    "scope": ", shared by all keys of this account",
    "per_key": " per key",
    "'s' * (allowed > 1)": "s",
    "_duration_text(wait)": "4 h 59 min",
    "period_text(limit.per)": "5 hours",
    "hint": " (perhaps 192.0.2.0/24 is meant)",
    "hint and '; ' + hint": "",
}
RAISERS = re.compile(
    r"(?:\w*Error|QuotaExceeded|\w*_error|invalid_field|Verdict|_general|_verdict|_failed|end)$"
)
LATIN = re.compile(r"[A-Za-z']{2,}(?: [A-Za-z']{2,}){2,}")


def files() -> Iterator[Path]:
    for name in SHOWN:
        path = ROOT / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def sample(node: ast.expr, constants: dict[str, str]) -> str:
    """A sentence with values in its places; empty: the expression is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Name):
        return constants.get(node.id, "")
    if isinstance(node, ast.BinOp):
        left, right = sample(node.left, constants), sample(node.right, constants)
        return left + right if left and right else ""
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts = []
    for one in node.values:
        if isinstance(one, ast.FormattedValue):
            parts.append(_value(one, constants))
        else:
            parts.append(sample(one, constants))
    return "".join(parts)


def _value(place: ast.FormattedValue, constants: dict[str, str]) -> str:
    source = ast.unparse(place.value)
    if source in SAMPLES and place.conversion < 0:
        return SAMPLES[source]
    constant = sample(place.value, constants) if isinstance(place.value, ast.Name) else ""
    return constant or ("'7'" if place.conversion == ord("r") or "_short(" in source else "7")


def sentences() -> Iterator[tuple[str, str]]:
    """Each sentence of an error or a verdict in the code, with its place."""
    for path in files():
        tree = ast.parse(path.read_text("utf-8"))
        constants = {
            node.target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", "") or getattr(node.func, "attr", "")
            if RAISERS.match(name):
                for text in [sample(one, constants) for one in node.args]:
                    if " " in text and not NOT_SHOWN.match(text):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def notes() -> Iterator[tuple[str, str]]:
    """Parts of sentences: what a reason is set to, and tables of replies and of hints."""
    for path in files():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                for text in [sample(one, {}) for one in _parts(node)]:
                    if " " in text and "{" not in text:
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", text


def _parts(node: ast.Assign | ast.AnnAssign) -> list[ast.expr]:
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    name = target.id if isinstance(target, ast.Name) else ""
    is_table = name.endswith(("_HINTS", "_HINT", "_REPLIES", "RIGHT_NAMES"))
    if node.value is None or not (is_table or name in ("reason", "hint", "words")):
        return []
    return node.value.values if isinstance(node.value, ast.Dict) else [node.value]


def test_every_part_of_a_sentence_has_its_chinese() -> None:
    missing = [
        f"{place} {text!r}"
        for place, text in notes()
        if not NOT_SHOWN.match(text) and not translated(text, "zh")
    ]
    assert len(dict.fromkeys(notes())) > 30
    assert missing == []


def test_every_sentence_of_the_code_has_its_chinese() -> None:
    found = dict.fromkeys(text for _, text in sentences())
    assert len(found) > 300
    missing = [
        f"{place} {text!r}"
        for place, text in sentences()
        if not translated(text, "zh") or LATIN.search(in_language(text, "zh"))
    ]
    assert missing == []


def test_every_reason_of_an_upstreams_error_has_its_chinese() -> None:
    reasons = [kind.value for kind in FailureKind]
    reasons += [rule.reason for vendor in shipped() for rule in vendor.rules]
    assert [reason for reason in reasons if not translated(f"429: {reason}", "zh")] == []
    assert [one for one in reasons if LATIN.search(in_language(f"429: {one}", "zh"))] == []


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("", ""),
        ("the upstream closed the connection early: its answer has no end",
         "上游提前关闭了连接：回答没有结尾"),
        ("main: 529: overloaded; b: cannot be reached: Connection refused",
         "main：529：过载；b：无法连接：连接被拒绝"),
        ("overloaded; 12 s to go", "过载；还有 12 秒"),
        ("This account is suspended. Ask the operator of this relay to resume it.",
         "此账户已停用。请联系管理员恢复。"),
        ("This account is suspended: Chargeback! Ask the operator of this relay to resume it.",
         "此账户已停用：“Chargeback!” 请联系管理员恢复。"),
        ("The balance of this account, $1.5, does not cover this request, which may cost $2; a "
         "lower max_tokens makes it less. Ask the operator of this relay for credit.",
         "此账户的余额 $1.5 不足以支付此请求，它最多可能花费 $2；减小 max_tokens 可以降低。"
         "请联系管理员充值。"),
        ("The balance of this account is used up. Ask the operator of this relay for credit.",
         "此账户的余额已用完。请联系管理员充值。"),
        ("Unknown model 'x'. Available: a, b", "没有模型 'x'。可用模型：a, b"),
        ("upstream[0].name: is missing; write text in quotes",
         "upstream[0].name：缺少此项，请填写带引号的文本"),
        ("/srv/relay.toml: upstream[1].base_url: must be text in quotes, not 5",
         "/srv/relay.toml：upstream[1].base_url：必须是带引号的文本，而不是 5"),
        ("prompt is too long: 3 tokens > 2 maximum", "“prompt is too long: 3 tokens > 2 maximum”"),
        ("Bad {request} {0}", "“Bad {request} {0}”"),
        ("x" * 2_000, f"“{'x' * 2_000}”"),
    ],
)  # fmt: skip
def test_words_of_an_upstream_stay_in_quotation_marks(english: str, chinese: str) -> None:
    assert in_language(english, "zh") == chinese
    assert in_language(english, "en") == english


def test_words_made_to_fit_often_are_read_at_once() -> None:
    """Anybody may ask for the words of a sentence, so none may take long to be looked up."""
    tables = tomllib.loads((ROOT / "web/languages/reasons.zh.toml").read_text("utf-8"))
    for english in (english for table in tables.values() for english in table):
        literals = re.split(r"\{[a-z]+[0-9]*\}", english)
        if len(literals) < 4:
            continue
        middle = "".join(f"{literal}a" for literal in literals[1:-1]) * 1_000
        words = f"{literals[0]}{middle}"[: 1_000 - len(literals[-1])] + f"{literals[-1]}~"
        started = time.perf_counter()
        translated.__wrapped__(words[:1_000], "zh")
        assert time.perf_counter() - started < 1.0, english  # 8 ms alone
