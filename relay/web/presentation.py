"""What all pages of a process are made from: templates, texts and assets, read once.

Decides how templates are compiled and what they may use. Must not know a page.
"""

from functools import cache
from pathlib import Path
from typing import Final

import jinja2

from relay.accounts.passkeys import relying_party
from relay.web.assets import Assets
from relay.web.formats import FILTERS
from relay.web.languages import NAMES, read_texts, translator
from relay.web.reasons import load
from relay.web.visit import THEMES

_TEMPLATES: Final = Path(__file__).parent / "templates"


class Presentation:
    """See the module."""

    def __init__(self) -> None:
        texts = read_texts()
        load()
        self.assets = Assets()
        self.texts = {language: translator(texts[language]) for language in texts}
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_TEMPLATES),
            autoescape=True,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        self._environment.filters.update(FILTERS)
        self._environment.globals.update(
            asset=self.assets.url,
            languages=NAMES,
            themes=THEMES,
            done_keys={key[5:] for key in texts["en"] if key.startswith("done.")},
            relying_party=relying_party,
        )
        for name in self._environment.list_templates():  # compiled now, not at each first use
            self._environment.get_template(name)

    def render(self, template: str, **values: object) -> str:
        """The text of a page."""
        return self._environment.get_template(template).render(values)


@cache
def presentation() -> Presentation:
    """The one of this process. Compiling the templates takes 0.3 s."""
    return Presentation()
