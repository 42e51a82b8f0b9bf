"""Markdown → HTML, with anchors, code to copy, and what the search finds.

Decides the mark-up of a page. HTML in a text comes out as text. Must not know settings or where
pages are served.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from relay.web.languages import Translate
from relay.web.manual.filling import KEY

_NOT_IN_ANCHORS: Final = re.compile(r"[^a-z0-9]+")
_TOKENS: Final = re.compile(
    r"""(?P<c>(?:^|(?<=\s))(?:\#|//)[^\n]*)
    |(?P<n>"(?:\\.|[^"\\\n])*"(?=\s*:)|^[\w.-]+(?=\s*[:=]\s)|^\[[^\]\n]+\]$)
    |(?P<s>"(?:\\.|[^"\\\n])*"|'[^']*')
    |(?P<k>\b(?:import|from|const|export|await|async|for|in|of|with|as|new|print|curl)\b)""",
    re.MULTILINE | re.VERBOSE,
)
_PLAIN: Final = frozenset({"text", "http", "sse"})
_MARKED_KEY: Final = f'<mark class="key">{KEY}</mark>'


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading below the title. `level` is 2 or 3."""

    level: int
    anchor: str
    text: str


@dataclass(slots=True)
class Section:
    """What the search finds: a heading and the text below it."""

    anchor: str
    heading: str
    parts: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Code:
    """A block of code below a heading. `caption` is its file, or empty."""

    anchor: str
    caption: str
    text: str


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page as HTML: `opening` is its title and first paragraph, `body` the rest. `lead` is the
    first paragraph as text."""

    title: str
    lead: str
    opening: str
    body: str
    headings: list[Heading]
    sections: list[Section]
    codes: list[Code]

    @property
    def has_key(self) -> bool:
        """Whether its code has a place for a key."""
        return _MARKED_KEY in self.body


def parse(text: str) -> list[Token]:
    """The tokens of a text."""
    return _markdown.parse(text)


def anchors(tokens: Sequence[Token]) -> list[str]:
    """The anchors of a page's headings, from their words, each once."""
    found: list[str] = []
    for _, inline in _headings(tokens):
        stem = _NOT_IN_ANCHORS.sub("-", _words(inline).lower()).strip("-") or "section"
        number = sum(one == stem or one.rpartition("-")[0] == stem for one in found)
        found.append(f"{stem}-{number + 1}" if stem in found else stem)
    return found


def render(tokens: list[Token], names: Sequence[str], t: Translate) -> Rendered:
    """A page. `names` are the anchors of its headings, which are the same in every language."""
    title = lead = ""
    headings: list[Heading] = []
    for name, (opening, inline) in zip(names, _headings(tokens), strict=True):
        opening.attrSet("id", name)
        headings.append(Heading(int(opening.tag[1:]), name, _words(inline)))
    for index, token in enumerate(tokens):
        if token.attrs.pop("style", None) is not None:  # of a column; pages have no inline style
            token.attrSet("class", "n")
        if token.type == "heading_open" and token.tag == "h1":
            title = _words(tokens[index + 1])
        elif token.type == "paragraph_open" and not lead:
            lead = _words(tokens[index + 1])
    html = _markdown.renderer.render(tokens, _markdown.options, {"t": t, "codes": 0})
    opening, end, body = html.partition("</p>\n")
    sections = list(_sections(tokens, title))
    return Rendered(title, lead, opening + end, body, headings, sections, list(_codes(tokens)))


def _headings(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token]]:
    for index, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag in ("h2", "h3"):
            yield token, tokens[index + 1]


def _words(inline: Token) -> str:
    """The text of inline content, without its mark-up."""
    return "".join(
        " " if child.type == "softbreak" else child.content for child in inline.children or ()
    )


def _sections(tokens: Sequence[Token], title: str) -> Iterator[Section]:
    section = Section("", title)
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            if section.parts:
                yield section
            section = Section(str(token.attrs.get("id", "")), _words(tokens[index + 1]))
        elif token.type == "inline" and tokens[index - 1].type != "heading_open":
            section.parts.append(_words(token))
    yield section


def _codes(tokens: Sequence[Token]) -> Iterator[Code]:
    anchor = ""
    for token in tokens:
        if token.type == "heading_open":
            anchor = str(token.attrs.get("id", ""))
        elif token.type == "fence":
            yield Code(anchor, token.info.strip().partition(" ")[2], token.content)


def highlighted(code: str, kind: str) -> str:
    """Code as HTML, with its comments, names and texts marked."""
    if kind in _PLAIN:
        return escape(code, quote=False).replace(KEY, _MARKED_KEY)
    out: list[str] = []
    end = 0
    for match in _TOKENS.finditer(code):
        out.append(escape(code[end : match.start()], quote=False))
        out.append(f'<i class="{match.lastgroup}">{escape(match[0], quote=False)}</i>')
        end = match.end()
    out.append(escape(code[end:], quote=False))
    return "".join(out).replace(KEY, _MARKED_KEY)


class _Renderer(RendererHTML):
    """The mark-up of what differs from CommonMark's."""

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """Code with its kind or file, and a button that copies it."""
        token, t = tokens[idx], env["t"]
        kind, _, caption = token.info.strip().partition(" ")
        env["codes"] += 1
        name = f"code-{env['codes']}"
        button = (
            f'<button type="button" class="quiet needs-script" data-copy="#{name}" '
            f'data-copied="{escape(t("docs.copied"))}">{escape(t("docs.copy"))}</button>'
            if kind not in _PLAIN
            else ""
        )
        return (
            f'<div class="code"><div class="code-head"><span>{escape(caption or kind)}</span>'
            f'{button}</div><pre tabindex="0"><code id="{name}">'
            f"{highlighted(token.content, kind)}</code></pre></div>\n"
        )

    def heading_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A link to the heading itself."""
        opening, t = tokens[idx - 2], env["t"]
        name = opening.attrs.get("id")
        if name is None:
            return f"</{opening.tag}>\n"
        label = escape(t("docs.anchor"))
        link = f'<a class="anchor" href="#{name}" aria-label="{label}">#</a>'
        return f" {link}</{opening.tag}>\n"

    def table_open(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """A table scrolls by itself where it is too wide."""
        return '<div class="scroll" tabindex="0"><table>\n'

    def table_close(self, tokens: Sequence[Token], idx: int, options: Any, env: Any) -> str:
        """See `table_open`."""
        return "</table></div>\n"


_markdown: Final = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable("table")
