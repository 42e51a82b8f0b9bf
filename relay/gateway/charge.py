"""What an answer costs: its usage, at the prices of the models that ran.

Decides how much of an answer is billed that was cut or left. Must not know limits or balances.
"""

from copy import copy
from typing import Final

from relay.quota.prices import PriceList, Prices, rounded_up
from relay.translate.messages.usage import Usage

_OCTETS_PER_TOKEN: Final = 4
_MAX_COST_MICRO: Final = 10**12  # micro-dollars: the most that the database takes


class Bill:
    """The tokens and micro-dollars of one answer; None for tokens that nobody stated."""

    __slots__ = ("cache_read", "cache_write", "cost", "input", "output")

    def __init__(
        self,
        input: int | None = None,
        output: int | None = None,
        cache_read: int | None = None,
        cache_write: int | None = None,
        cost: int = 0,
    ) -> None:
        self.input = input
        self.output = output
        self.cache_read = cache_read
        self.cache_write = cache_write
        self.cost = cost


class Tariff:
    """The prices of one request. `prompt` and `output` are its estimates in tokens: of what it
    sends, and the most that its answer has."""

    __slots__ = ("_list", "_model", "_output", "_prices", "_prompt")

    def __init__(
        self, price_list: PriceList, model: str, prices: Prices | None, prompt: int, output: int
    ) -> None:
        self._list = price_list
        self._model = model
        self._prices = prices
        self._prompt = prompt
        self._output = output

    def prompt_only(self) -> Bill:
        """The bill of a request whose caller left before its answer said anything."""
        bill = Bill(self._prompt)
        if self._prices is not None:
            bill.cost = min(self._prices.cost(self._prompt, 0), _MAX_COST_MICRO)
        return bill

    def of(self, usage: Usage, *, cut: bool) -> Bill:
        """The bill of an answer. `cut`: it did not come to its end.

        Text that passed before its output was stated counts as a token for four octets. Of an
        answer that was cut, the prompt counts as estimated where its input was not stated.
        """
        if cut or usage.passed > 0:
            usage = self._with_estimates(usage, cut)
        bill = Bill(usage.input, usage.output, usage.cache_read, usage.cache_write)
        own, units = self._prices, 0
        if usage.iterations:
            parts = usage.billed()
            bill.input = sum([part.input for part in parts])
            bill.output = sum([part.output for part in parts])
            bill.cache_read = sum([part.cache_read for part in parts])
            bill.cache_write = sum([part.cache_write for part in parts])
            if own is not None:
                for part in parts:
                    prices = self._list.of_run(self._model, own, part.model)
                    units += prices.units(
                        part.input,
                        part.output,
                        part.cache_read,
                        part.cache_write,
                        part.cache_write_1h,
                    )
        elif own is not None:
            units = own.units(
                usage.input or 0,
                usage.output or 0,
                usage.cache_read or 0,
                usage.cache_write or 0,
                usage.cache_write_1h,
            )
        if own is not None:
            units = own.in_mode(units, usage.speed, usage.geography, usage.tier)
            if usage.web_searches or usage.web_fetches or usage.code_executions:
                units += (
                    usage.web_searches * own.web_search
                    + usage.web_fetches * own.web_fetch
                    + usage.code_executions * own.code_execution
                )
            cost = rounded_up(units)
            bill.cost = cost if cost < _MAX_COST_MICRO else _MAX_COST_MICRO
        return bill

    def _with_estimates(self, usage: Usage, cut: bool) -> Usage:
        """The usage with estimates for what an answer had no time to state."""
        usage = copy(usage)
        if cut and not (usage.input or usage.cache_read or usage.cache_write):
            usage.input = self._prompt
        least = min(max(0, usage.passed) // _OCTETS_PER_TOKEN, self._output)
        if least > (usage.output or 0):
            usage.output = least
        return usage
