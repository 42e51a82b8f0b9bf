"""`[payments]`: what its settings may be, and how they are shown."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from relay import config
from relay.cli.program import main
from tests.config.sections import UPSTREAM, load

PLANS = [{"id": "free"}, {"id": "pro"}]
CREDIT = {"id": "credit-20", "title": "20 dollars", "price": 2000, "credit": 20}
PLAN = {"id": "pro", "title": "Pro", "price": 1900, "plan": "pro", "length": "30d"}
KEYS = {"stripe_key": "sk_test_1", "webhook_secret": "whsec_1"}


def parse(*offers: dict[str, Any], **more: Any) -> config.Settings:
    return config.parse({"plan": PLANS, "payments": {**KEYS, "offer": list(offers), **more}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "a b"}, "is no name"),
        ({"title": ""}, "title: must have"),
        ({"title": "a\nb"}, "title: must have"),
        ({"price": 0}, "price: must be"),
        ({"price": 10**8}, "price: must be"),
        ({"credit": -1}, "credit: must be"),
        ({"credit": float("nan")}, "credit: must be"),
        ({"credit": 0}, "credit: must be given"),
        ({"plan": "pro", "length": "30d"}, "credit: must be given"),
        ({"length": "30d"}, "length: goes with plan"),
        ({"then": "pro"}, "then: goes with plan"),
        ({"credit": 0, "plan": "pro"}, "length: goes with plan"),
        ({"credit": 0, "plan": "none", "length": "30d"}, "no plan has the id 'none'"),
        ({"credit": 0, "plan": "pro", "length": "30d", "then": "x"}, "no plan has the id 'x'"),
    ],
)
def test_an_offer_that_cannot_be_sold_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        parse({**CREDIT, **change})
    assert words in f"{error.value}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stripe_key": ""}, "belong together"),
        ({"webhook_secret": ""}, "belong together"),
        ({"stripe_key": "$KEY"}, "write env:KEY"),
        ({"webhook_secret": "${KEY}"}, "write env:KEY"),
        ({"offer": []}, "offer: is needed"),
        ({"offer": [CREDIT, CREDIT]}, "is given twice"),
        ({"currency": "USD"}, "currency: must be"),
        ({"currency": "kwd"}, "currency: must be"),
        ({"tax_percent": 100}, "tax_percent: must be"),
        ({"seller": "某公司"}, "seller: must have Latin letters"),
        ({"seller": "a\x00"}, "seller: must have printable"),
        ({"seller": "a" * 1001}, "seller: must have up to"),
        ({"api": "http://stripe.example"}, "api: must begin with https://"),
        ({"checkout": "https://a.example/pay"}, "checkout: takes"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(config.ConfigError) as error:
        parse(**{"offer": [CREDIT], **change})
    assert words in f"{error.value}"


def test_payments_need_pages() -> None:
    tree = {"web": {"enabled": False}, "payments": {**KEYS, "offer": [CREDIT]}}
    with pytest.raises(config.ConfigError, match=r"web\.enabled"):
        config.parse(tree)


def test_what_is_sold_is_exact() -> None:
    settings = parse({**CREDIT, "credit": 0.29}, PLAN).payments
    assert settings.enabled
    assert [offer.credit_micro for offer in settings.offer] == [290_000, 0]
    assert not config.parse({}).payments.enabled


def test_the_keys_are_masked(tmp_path: Path) -> None:
    text = UPSTREAM + '[payments]\nstripe_key = "sk-canary"\nwebhook_secret = "file:hook.txt"\n'
    text += '[[payments.offer]]\nid = "a"\ntitle = "A"\nprice = 1\ncredit = 1\n'
    settings = load(tmp_path, text)
    assert "canary" not in repr(settings.payments)
    tree = config.effective(settings)["payments"]
    assert "canary" not in str(tree)
    assert tree["webhook_secret"] == f"file:{tmp_path}/hook.txt"
    assert settings.payments.resolved("stripe_key").reveal() == "sk-canary"


def test_a_check_names_a_secret_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text(
        UPSTREAM + '[payments]\nstripe_key = "env:NO_SUCH_KEY"\nwebhook_secret = "whsec_1"\n'
        '[[payments.offer]]\nid = "a"\ntitle = "A"\nprice = 1\ncredit = 1\n'
    )
    result = CliRunner().invoke(main, ["check", "--config", str(tmp_path / "relay.toml")])
    assert result.exit_code != 0
    assert "payments.stripe_key" in result.output
    assert "NO_SUCH_KEY" in result.output
