"""Fenced blocks of Markdown as models write them: in lists and quotes, with attributes, unclosed, with fences in their strings."""

import ast
import re

PYTHON = ("", "py", "py3", "python", "python2", "python3", "ipython", "ipython3")
_NESTING = ("", "markdown", "md", "text", "txt", "plaintext")  # what is fenced may hold fences of its own
_LEAD = r"(?P<quote>(?:[ ]{0,3}>)*)[ \t]*(?:(?:[-*+]|\d{1,3}[.)])[ \t]+)*"
_OPENS = re.compile(rf"^{_LEAD}(?P<fence>`{{3,}}(?=[^`]*$)|~{{3,}})[ \t]*(?P<info>.*)$")
_OPENS_WITHIN = re.compile(r"^(?P<quote>).*?\S.*?(?P<fence>`{3,})(?P<info>py(?:thon)?3?)[ \t]*$", re.IGNORECASE)
_TAG = re.compile(r"[{\s.]*([\w+#-]*)")


def blocks(text: str) -> list[tuple[str, str]]:
    """(tag, code) of every block, in order; the tag is the language's in lower case, "" where there is none.

    A block of Python ends at the first closing fence that does not stand in one of its strings; an unclosed one where the next
    begins, or the text ends.
    """
    lines, found, at = text.split("\n"), [], 0
    while at < len(lines):
        opened = _OPENS.match(lines[at]) or _OPENS_WITHIN.match(lines[at])
        at += 1
        if opened is None:
            continue
        tag = _TAG.match(opened["info"])[1].lower()
        inner = _unquoted(lines[at:], opened["quote"].count(">"))
        length, more = _length(inner, opened["fence"], tag)
        code = dedented(inner[:length])
        if tag in _NESTING and parsed(code) is None and (nested := blocks(code)):
            found += nested
        else:
            found.append((tag, _cut_at_its_fence(code, opened["fence"])))
        at += length + more
    return found


def parsed(code: str) -> ast.Module | None:
    """None where it is no program."""
    return _parsed(code)[0]


def _parsed(code: str) -> tuple[ast.Module | None, str]:
    try:
        return ast.parse(code), ""
    except SyntaxError as error:
        return None, str(error.msg)
    except (ValueError, RecursionError, MemoryError) as error:
        return None, str(error)


def dedented(lines: list[str]) -> str:
    """Without the margin that all lines have; those of blanks alone stay as they are."""
    margins = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines if line.strip()]
    margin = min(margins, key=len, default="")
    if not margin or not all(other.startswith(margin) for other in margins):
        return "\n".join(lines)
    return "\n".join(line.removeprefix(margin) for line in lines)


def _unquoted(lines: list[str], depth: int) -> list[str]:
    """The lines of a quote without its marks, to its end."""
    if not depth:
        return lines
    mark, found = re.compile(rf"^(?:[ ]{{0,3}}>){{{depth}}} ?"), []
    for line in lines:
        if not (at := mark.match(line)):
            break
        found.append(line[at.end() :])
    return found


def _length(lines: list[str], fence: str, tag: str) -> tuple[int, int]:
    """How many lines belong to a block, and how many more (a closing fence) are done with."""
    closes = re.compile(rf"^[ \t]*{re.escape(fence[0])}{{{len(fence)},}}[ \t]*$")
    first = None
    for number, line in enumerate(lines):
        closed = closes.match(line)
        again = (
            tag in PYTHON
            and not closed
            and (opened := _OPENS.match(line))
            and opened["info"]
            and opened["fence"][0] == fence[0]
        )
        if not closed and not again:
            continue
        tree, wrong = _parsed(dedented(lines[:number])) if tag in PYTHON else (True, "")
        if tree or (first is None and not wrong.startswith("unterminated")):
            return number, int(bool(closed))
        first = first if first is not None or again else number
    return (len(lines), 0) if first is None else (first, 1)


def _cut_at_its_fence(code: str, fence: str) -> str:
    """What stands before a fence that was written behind the last line's text, where that makes it a program."""
    if fence not in code or parsed(code) is not None:
        return code
    for at in (match.start() for match in re.finditer(rf"(?<=\S)[ \t]*{re.escape(fence)}[ \t]*$", code, re.MULTILINE)):
        if parsed(code[:at]) is not None:
            return code[:at]
    return code
