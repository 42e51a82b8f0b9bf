"""All pages of the documentation in one language, for one state of the settings.

Made once, on a thread; a request only looks things up. Must not know requests.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import orjson

from relay.config import Settings
from relay.web.languages import Translate
from relay.web.manual.contents import FIRST, GROUPS, PAGES, SOURCE, page_path, read_text
from relay.web.manual.filling import Filler, as_text
from relay.web.manual.rendering import Rendered, anchors, parse, render

_MAX_SECTION: Final = 600  # characters of a section that the search finds


@dataclass(frozen=True, slots=True)
class ManualPage:
    """`source` is its Markdown, filled."""

    name: str
    source: str
    rendered: Rendered

    @property
    def path(self) -> str:
        return page_path(self.name)


class Edition:
    """See the module. `search` is the index of its search, `overview` its llms.txt."""

    def __init__(self, language: str, settings: Settings, t: Translate) -> None:
        filler = Filler(settings)
        self.pages: dict[str, ManualPage] = {}
        for name in PAGES:
            source = filler.fill(read_text(name, language))
            tokens = parse(source)
            originals = tokens
            if language != SOURCE:
                originals = parse(filler.fill(read_text(name, SOURCE)))
            self.pages[name] = ManualPage(name, source, render(tokens, anchors(originals), t))
        self.groups = {
            group: [self.pages[name] for name in names] for group, names in GROUPS.items()
        }
        self.search = orjson.dumps(
            [
                [page.path, section.anchor, page.rendered.title, section.heading,
                 " ".join(section.parts)[:_MAX_SECTION]]
                for page in self.pages.values()
                for section in page.rendered.sections
            ]
        )  # fmt: skip
        self.search_digest = hashlib.sha256(self.search).hexdigest()[:10]
        self.overview = self._overview(settings, t)

    def around(self, page: ManualPage) -> tuple[ManualPage | None, ManualPage | None]:
        """The pages before and after one."""
        ordered = list(self.pages.values())
        place = ordered.index(page)
        return (
            ordered[place - 1] if place else None,
            ordered[place + 1] if place + 1 < len(ordered) else None,
        )

    def _overview(self, settings: Settings, t: Translate) -> bytes:
        """The pages with what each is about, as llmstxt.org has it."""
        base = settings.server.public_url.rstrip("/")
        lines = [f"# {as_text(settings.web.name)}", "", f"> {self.pages[FIRST].rendered.lead}"]
        for group, pages in self.groups.items():
            lines += ["", f"## {t(f'docs.group_{group}')}", ""]
            lines += [
                f"- [{page.rendered.title}]({base}/docs/{page.name}.md): {page.rendered.lead}"
                for page in pages
            ]
        return ("\n".join(lines) + "\n").encode()
