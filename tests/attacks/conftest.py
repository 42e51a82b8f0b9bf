"""Mails and browsers, as the tests of pages have them."""

from tests.web.conftest import another, mailbox, visitors

__all__ = ["another", "mailbox", "visitors"]
