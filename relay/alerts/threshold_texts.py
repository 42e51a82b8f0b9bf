"""The words of mails about thresholds, in the languages of the pages.

A language that has none here gets English. Must not know when mails go, or how.
"""

from datetime import UTC, datetime
from typing import Final

from relay.store.thresholds import BALANCE, Crossing

_MICRO: Final = 10**6
_UNITS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))

TEXTS: Final[dict[str, dict[str, str]]] = {
    "en": {
        "subject": "{name}: {percent} % of {limit} used",
        "text": (
            "{percent} % of your limit of {size} {limit} is used: {used} so far.\n"
            "It is full again on {reset} UTC.\n\n"
            "All limits as they stand now: {url}/dashboard\n"
            "Change when you get such mails: {url}/account\n"
        ),
        "key_subject": "{name}: {percent} % of {limit} used by key {key}",
        "key_text": (
            "The key {key} has used {percent} % of its limit of {size} {limit}: {used} so far.\n"
            "It is full again on {reset} UTC.\n\n"
            "Its limits: {url}/dashboard/keys\n"
            "Change when you get such mails: {url}/account\n"
        ),
        "balance_subject": "{name}: your balance is below {threshold}",
        "balance_text": (
            "Your balance is {balance}, which is less than {threshold}.\n\n"
            "The statement: {url}/dashboard/balance\n"
            "Change when you get such mails: {url}/account\n"
        ),
        "requests": "requests per {period}",
        "tokens": "tokens per {period}",
        "money": "spending per {period}",
        "day": "day", "days": "{number} days", "hour": "hour", "hours": "{number} hours",
        "minute": "minute", "minutes": "{number} minutes",
        "second": "second", "seconds": "{number} seconds", "week": "week", "month": "month",
    },
    "zh": {
        "subject": "{name}：{limit}已用 {percent}%",
        "text": (
            "您的{limit}（上限 {size}）已用 {percent}%，目前共 {used}。\n"
            "将于 {reset}（UTC）恢复。\n\n"
            "查看全部额度：{url}/dashboard\n"
            "更改邮件提醒：{url}/account\n"
        ),
        "key_subject": "{name}：密钥 {key} 的{limit}已用 {percent}%",
        "key_text": (
            "密钥 {key} 的{limit}（上限 {size}）已用 {percent}%，目前共 {used}。\n"
            "将于 {reset}（UTC）恢复。\n\n"
            "查看其额度：{url}/dashboard/keys\n"
            "更改邮件提醒：{url}/account\n"
        ),
        "balance_subject": "{name}：余额低于 {threshold}",
        "balance_text": (
            "您的余额为 {balance}，已低于 {threshold}。\n\n"
            "查看账单：{url}/dashboard/balance\n"
            "更改邮件提醒：{url}/account\n"
        ),
        "requests": "每{period}的请求数",
        "tokens": "每{period}的 token 数",
        "money": "每{period}的消费",
        "day": "天", "days": " {number} 天", "hour": "小时", "hours": " {number} 小时",
        "minute": "分钟", "minutes": " {number} 分钟",
        "second": "秒", "seconds": " {number} 秒", "week": "周", "month": "月",
    },
}  # fmt: skip


def words(one: Crossing, name: str, url: str) -> tuple[str, str]:
    """Subject and text of a mail. `name` is the relay's, `url` where its pages are."""
    texts = TEXTS.get(one.language, TEXTS["en"])
    if one.about == BALANCE:
        kind = "balance_"
        values = {"threshold": _dollars(one.threshold), "balance": _dollars(one.used)}
    else:
        kind = "key_" if one.key_name else ""
        show = _dollars if one.kind == "money" else "{:,}".format
        values = {
            "key": one.key_name,
            "percent": str(one.threshold),
            "limit": texts[one.kind].format(period=_period(one, texts)),
            "size": show(one.size),
            "used": show(one.used),
            "reset": datetime.fromtimestamp(one.until / 1000, UTC).strftime("%Y-%m-%d %H:%M"),
        }
    values |= {"name": name, "url": url}
    return texts[kind + "subject"].format(**values), texts[kind + "text"].format(**values)


def _period(one: Crossing, texts: dict[str, str]) -> str:
    if one.refill in texts:  # by the calendar
        return texts[one.refill]
    size, unit = next((size, unit) for size, unit in _UNITS if one.per % size == 0)
    number = one.per // size
    return texts[unit] if number == 1 else texts[unit + "s"].format(number=number)


def _dollars(micro: int) -> str:
    units, rest = divmod(abs(micro), _MICRO)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${units:,}.{decimals}"
