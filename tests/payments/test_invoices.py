"""Amounts, invoices and CSV, to the cent."""

import re
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.payments.amounts import decimal, money, tax_within
from relay.payments.invoices import COLUMNS, as_pdf, csv_values
from relay.store.payments import Payment, month_bounds
from relay.store.users import User
from tests.payments.conftest import NOW, OFFERED


def paid(**changes: object) -> Payment:
    user = User("usr_1", "grace@example.com", "free", False, None, NOW)
    purchase = msgspec.structs.asdict(OFFERED.purchases["credit-20"])
    row = dict.fromkeys(Payment.__struct_fields__) | purchase
    row |= {"id": "pay_1", "user_id": user.id, "email": user.email, "state": "paid"}
    row |= {"created_at": NOW, "paid_at": NOW, "refunded": 0, "reversed_micro": 0}
    row |= {"invoice_year": 2026, "invoice_number": 7}
    return Payment(**{**row, **changes})  # type: ignore[arg-type]


def text_of(pdf: bytes) -> str:
    """The text of a page, in the order of its lines."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL)
    page = b"".join(zlib.decompress(one) for one in streams)
    found = re.findall(rb"\(((?:[^()\\]|\\.)*)\) ?Tj", page)
    return "\n".join(one.replace(b"\\", b"").decode("cp1252") for one in found)


@pytest.mark.parametrize(
    ("cents", "currency", "plain", "shown"),
    [
        (123450, "eur", "1234.50", "1,234.50 EUR"),
        (5, "usd", "0.05", "0.05 USD"),
        (1234, "jpy", "1234", "1,234 JPY"),
        (0, "usd", "0.00", "0.00 USD"),
        (-500, "eur", "-5.00", "-5.00 EUR"),
        (-5, "eur", "-0.05", "-0.05 EUR"),
    ],
)
def test_an_amount_is_exact(cents: int, currency: str, plain: str, shown: str) -> None:
    assert decimal(cents, currency) == plain
    assert money(cents, currency) == shown


@pytest.mark.parametrize(
    ("price", "percent", "tax"),
    [(2000, "19", 319), (100, "7.7", 7), (1, "19", 0), (2000, "0", 0), (11900, "19", 1900)],
)
def test_the_tax_in_a_price(price: int, percent: str, tax: int) -> None:
    assert tax_within(price, percent) == tax


@given(st.integers(1, 10**8), st.integers(0, 9_999))
def test_tax_and_net_are_the_price(price: int, hundredths: int) -> None:
    percent = f"{hundredths / 100:g}"
    tax = tax_within(price, percent)
    assert 0 <= tax <= price
    net = price - tax
    assert abs(net * hundredths / 10_000 - tax) <= 1


def test_an_invoice_says_what_was_paid() -> None:
    text = text_of(as_pdf(paid()))
    for words in (
        "Example Ltd", "1 Example Street", "No. 2026-0007", "Date 2026-11-30", "grace@example.com",
        "20 dollars of credit", "20.00 USD", "Tax 19 %", "3.19 USD", "16.81 USD",
    ):  # fmt: skip
        assert words in text
    assert "Refunded" not in text
    assert as_pdf(paid()) == as_pdf(paid())


def test_an_invoice_says_what_was_refunded() -> None:
    text = text_of(as_pdf(paid(refunded=333)))
    assert "-3.33 USD" in text
    assert "16.67 USD" in text


def test_an_invoice_without_tax_has_no_line_for_it() -> None:
    text = text_of(as_pdf(paid(tax_percent="0", seller="")))
    assert "Tax" not in text
    assert "Net" not in text


def test_what_the_fonts_lack_is_named_otherwise() -> None:
    text = text_of(as_pdf(paid(title="二十美元", email="王@example.com")))
    assert "credit-20" in text
    assert "?@example.com" in text
    assert "Crème (20 €)" in text_of(as_pdf(paid(title="Crème (20 €)")))


def test_a_row_of_csv_has_every_column() -> None:
    values = dict(zip(COLUMNS, csv_values(paid(refunded=333)), strict=True))
    assert (values["price"], values["tax"], values["refunded"]) == ("20.00", "3.19", "3.33")
    assert (values["invoice"], values["credit_usd"]) == ("2026-0007", "20.000000")
    assert values["state"] == "partly_refunded"


def test_a_month_has_its_bounds() -> None:
    assert month_bounds(2026, 12)[1] == month_bounds(2027, 1)[0]
    since, until = month_bounds(2026, 2)
    assert until - since == 28 * 86_400
