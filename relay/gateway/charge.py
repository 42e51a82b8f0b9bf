"""The charge for an answer: its usage, at the prices of the models that ran.

Decides how much of an answer is billed that was cut or left. Must not know limits or balances.
"""

from copy import copy
from typing import Final

from relay.quota.prices import PriceList, Prices, rounded_up
from relay.translate.messages.usage import Usage

_OCTETS_PER_TOKEN: Final = 4
_MAX_COST_MICRO: Final = 10**12  # micro-dollars: the most that the database takes


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

    def prompt_only(self) -> tuple[Usage, int]:
        """The tokens and micro-dollars of a request whose caller left before any answer."""
        cost = 0 if self._prices is None else self._prices.cost(self._prompt, 0)
        return Usage(self._prompt), min(cost, _MAX_COST_MICRO)

    def of(self, usage: Usage, *, cut: bool) -> tuple[Usage, int]:
        """The tokens and micro-dollars to charge for an answer. `cut`: it did not come to its end.

        Text that passed before its output was stated counts as a token for four octets. Of an
        answer that was cut, the prompt counts as estimated where its input was not stated.
        """
        if cut or usage.passed > 0:
            usage = self._with_estimates(usage, cut)
        own, units, charged = self._prices, 0, usage
        if usage.iterations:
            parts = usage.billed()
            charged = Usage(
                sum([part.input for part in parts]),
                sum([part.output for part in parts]),
                sum([part.cache_read for part in parts]),
                sum([part.cache_write for part in parts]),
            )
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
        if own is None:
            return charged, 0
        units = own.in_mode(units, usage.speed, usage.geography, usage.tier)
        if usage.web_searches or usage.web_fetches or usage.code_executions:
            units += (
                usage.web_searches * own.web_search
                + usage.web_fetches * own.web_fetch
                + usage.code_executions * own.code_execution
            )
        return charged, min(rounded_up(units), _MAX_COST_MICRO)

    def _with_estimates(self, usage: Usage, cut: bool) -> Usage:
        """The usage with estimates for what an answer had no time to state."""
        usage = copy(usage)
        if cut and not (usage.input or usage.cache_read or usage.cache_write):
            usage.input = self._prompt
        least = min(max(0, usage.passed) // _OCTETS_PER_TOKEN, self._output)
        if least > (usage.output or 0):
            usage.output = least
        return usage
