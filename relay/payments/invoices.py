"""An invoice as PDF, and a payment as a row of CSV.

Decides what an invoice says: only what was kept with the payment, so that it stays the same when
relay.toml changes. Making one takes some milliseconds and the first one loads the library, so it
runs on a thread. The fonts that every PDF reader has write Latin letters alone. Must not know
pages or SQL.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from relay.clock import rfc3339
from relay.net.off_loop import BoundedThreads
from relay.payments.amounts import decimal, money, tax_within
from relay.store.payments import Payment

if TYPE_CHECKING:
    from fpdf import FPDF

_MAX_IN_THREADS: Final = 2
_CHARACTERS: Final = "cp1252"
_FONT: Final = "helvetica"
_GREY: Final = 110
_LABEL_WIDTH, _AMOUNT_WIDTH = 120, 50  # of the table, in millimetres
COLUMNS: Final = (
    "invoice", "paid", "created", "payment", "account", "email", "offer", "title", "state", "price",
    "tax", "refunded", "currency", "credit_usd", "reversed_usd", "plan", "stripe_session",
    "stripe_payment_intent",
)  # fmt: skip


class Invoices:
    """Makes invoices, a few at once."""

    def __init__(self) -> None:
        self._threads = BoundedThreads(_MAX_IN_THREADS)

    async def pdf(self, payment: Payment) -> bytes:
        """The invoice of a payment that is paid. Raises BusyError: too many are being made."""
        return await self._threads.call("invoice", lambda: as_pdf(payment))


def as_pdf(payment: Payment) -> bytes:
    """The invoice of a payment that is paid. Takes long the first time."""
    from fpdf import FPDF

    assert payment.paid_at is not None
    pdf = FPDF(format="A4")
    pdf.core_fonts_encoding = _CHARACTERS
    pdf.set_creation_date(datetime.fromtimestamp(payment.paid_at, UTC))
    pdf.set_title(f"Invoice {payment.invoice}")
    pdf.set_margin(20)
    pdf.add_page()
    _head(pdf, payment)
    _table(pdf, payment)
    return bytes(pdf.output())


def _head(pdf: "FPDF", payment: Payment) -> None:
    assert payment.paid_at is not None
    top = pdf.get_y()
    pdf.set_font(_FONT, "", 10)
    pdf.multi_cell(95, 5, _latin(payment.seller.strip()), align="L")
    below = pdf.get_y()
    pdf.set_xy(120, top)
    pdf.set_font(_FONT, "B", 20)
    pdf.cell(70, 9, "Invoice", align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.set_font(_FONT, "", 10)
    day = datetime.fromtimestamp(payment.paid_at, UTC).strftime("%Y-%m-%d")
    for text in (f"No. {payment.invoice}", f"Date {day}", payment.id):
        pdf.set_x(120)
        pdf.cell(70, 5, text, align="R", new_x="LMARGIN", new_y="NEXT")
    pdf.set_y(max(below, pdf.get_y()) + 14)
    pdf.set_text_color(_GREY)
    pdf.cell(0, 5, "Billed to", new_x="LMARGIN", new_y="NEXT")
    pdf.set_text_color(0)
    pdf.multi_cell(0, 5, _latin(payment.email), align="L", new_x="LMARGIN", new_y="NEXT")
    pdf.ln(12)


def _table(pdf: "FPDF", payment: Payment) -> None:
    price, currency = payment.price, payment.currency
    pdf.set_draw_color(200)
    pdf.set_text_color(_GREY)
    _row(pdf, "Description", "Amount", "B")
    pdf.set_text_color(0)
    _row(pdf, _title(payment), money(price, currency), "B")
    if payment.tax_percent != "0":
        tax = tax_within(price, payment.tax_percent)
        _row(pdf, "Net", money(price - tax, currency))
        _row(pdf, f"Tax {payment.tax_percent} %", money(tax, currency))
    pdf.set_font(_FONT, "B", 11)
    _row(pdf, "Total, paid", money(price, currency), "T")
    pdf.set_font(_FONT, "", 10)
    if payment.refunded:
        _row(pdf, "Refunded", money(-payment.refunded, currency))
        pdf.set_font(_FONT, "B", 11)
        _row(pdf, "Left", money(price - payment.refunded, currency), "T")


def _row(pdf: "FPDF", label: str, amount: str, border: str = "") -> None:
    pdf.cell(_LABEL_WIDTH, 9, label, border=border or 0)
    pdf.cell(_AMOUNT_WIDTH, 9, amount, border=border or 0, align="R", new_x="LMARGIN", new_y="NEXT")


def _title(payment: Payment) -> str:
    """The title of the purchase; its id if the fonts cannot write it."""
    shown = payment.title
    try:
        shown.encode(_CHARACTERS)
    except UnicodeEncodeError:
        return payment.offer
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _latin(text: str) -> str:
    return text.encode(_CHARACTERS, "replace").decode(_CHARACTERS)


def csv_values(payment: Payment) -> tuple[object, ...]:
    """A payment in the order of `COLUMNS`."""
    price, currency = payment.price, payment.currency
    paid = "" if payment.paid_at is None else rfc3339(payment.paid_at)
    tax = tax_within(price, payment.tax_percent)
    return (
        payment.invoice, paid, rfc3339(payment.created_at), payment.id, payment.user_id,
        payment.email, payment.offer, payment.title, payment.shown, decimal(price, currency),
        decimal(tax, currency), decimal(payment.refunded, currency), currency,
        f"{payment.credit_micro / 10**6:.6f}", f"{payment.reversed_micro / 10**6:.6f}",
        payment.plan, payment.session or "", payment.intent or "",
    )  # fmt: skip
