"""`report.html`: report.md as one self-contained page, without network or other files."""

import base64
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup, escape

_NUMBERS = re.compile(r"[^A-Za-z]*(?:to[^A-Za-z]+)?(?:/[^A-Za-z]*)*")  # cells without words
_BETWEEN = re.compile(r"( / | (?=\())")
_TEMPLATE = Path(__file__).with_name("page.html.jinja")


def report_page(markdown: str, images: Mapping[str, bytes]) -> str:
    """The page. images: PNG files by the path that the Markdown names them by.

    HTML inside the Markdown is escaped, and so are links and images that are not among `images`: no text of a model can
    make the page load anything.
    """
    inlined = {path: f"data:image/png;base64,{base64.b64encode(png).decode()}" for path, png in images.items()}
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.validateLink = inlined.__contains__
    reader.add_render_rule("image", _image(inlined))
    reader.add_render_rule("link_open", _nothing)
    reader.add_render_rule("link_close", _nothing)
    reader.add_render_rule("table_open", lambda *_: '<div class="wide"><table>\n')
    reader.add_render_rule("table_close", lambda *_: "</table></div>\n")
    tokens = reader.parse(markdown)
    _break_cells(tokens)
    title, contents = _headings(tokens)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    if tokens and tokens[0].tag == "h1":  # opening, text, closing: the page has it above its contents
        tokens = tokens[3:]
    body = Markup(reader.renderer.render(tokens, reader.options, {}))
    return template.render(title=title, contents=contents, body=body) + "\n"


def _break_cells(tokens: list[Token]) -> None:
    """Allows line breaks in cells of numbers only between numbers: `100.0 (61.0–100.0) / 17` has three parts."""
    for before, inline in pairwise(tokens):
        if before.type in ("td_open", "th_open") and _NUMBERS.fullmatch(inline.content):
            inline.children = [
                one
                for child in inline.children
                for one in (_in_break_cells(child.content) if child.type == "text" else [child])
            ]


def _in_break_cells(text: str) -> list[Token]:
    parts = _BETWEEN.split(text)
    if len(parts) == 1:
        return [Token("text", "", 0, content=text)]
    found = []
    for number, part in enumerate(parts):
        found.append(Token("text", "", 0, content=part))
        if number % 2 == 0:  # between two of what separates them
            found[-1:] = [Token("piece_open", "span", 1), found[-1], Token("piece_close", "span", -1)]
    return found


def _headings(tokens: list[Token]) -> tuple[str, list[tuple[str, str]]]:
    """The title, and (id, text) of each section, whose headings get these ids."""
    title, contents, taken = "", [], set()
    for heading, inline in pairwise(tokens):
        if heading.type != "heading_open":
            continue
        text = "".join(child.content for child in inline.children)
        if heading.tag == "h1":
            title = title or text
        elif heading.tag == "h2":
            name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
            while name in taken:
                name += "-"
            taken.add(name)
            heading.attrSet("id", name)
            contents.append((name, text))
    return title, contents


def _image(inlined: Mapping[str, str]):
    def render(_, tokens, index, *__) -> str:
        token = tokens[index]
        caption = escape(token.content)
        return f'<img src="{inlined[token.attrs["src"]]}" alt="{caption}"><span class="caption">{caption}</span>'

    return render


def _nothing(*_) -> str:
    """Renders a link to an image of the page as its text."""
    return ""
