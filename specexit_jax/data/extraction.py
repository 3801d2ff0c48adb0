"""The program in an answer: in fences or bare, whole or the body that completes the prompt."""

import ast
import re
import textwrap

from specexit_jax.data.definitions import assembled, names_bound
from specexit_jax.data.fences import PYTHON, blocks, dedented, parsed

_STARTS = re.compile(r"^(?:def|class|from|import|async def|@)\b|^@|^[A-Za-z_]\w* *(?::[^=\n]+)?= *\S")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def program(answer: str, prompt: str, entry_point: str) -> str | None:
    """The program that defines `entry_point`, or that completes `prompt` where the answer holds only a body; None where
    nothing can be meant as one.

    Of several fences the last that defines it counts, with what those before it define (functions, classes, imports,
    constants), and with what it uses of those behind it.
    """
    answer = answer.replace("\r\n", "\n").replace("\r", "\n")
    fenced = blocks(answer)
    python = [code for tag, code in fenced if tag in PYTHON]
    known = names_bound(parsed(opening(prompt)))
    others = [code for _, code in fenced if parsed(code) is not None]
    for group in (python, others, _bare(answer), [] if fenced else _indented(answer)):
        if (at := _defining(group, entry_point)) is not None:
            group = [*map(_whole, group)]
            return assembled(group[:at], group[at], group[at + 1 :], known, entry_point)
    bodies = python if fenced else [answer]
    for at in reversed(range(len(bodies))):
        if completed := _completed(bodies[at], prompt, entry_point):
            return assembled(bodies[:at], completed, bodies[at + 1 :], known, entry_point)
    return None


def opening(prompt: str) -> str:
    """The prompt as a program of its own: its imports and helpers, and the function with an empty body where it has no
    docstring; "" where it is none."""
    closed = f"{prompt.rstrip()}\n    pass\n"
    return next((text for text in (prompt, closed) if parsed(text) is not None), "")


def defines(code: str, name: str) -> bool:
    """Whether a program gives `name` a meaning at its top level."""
    tree = parsed(code)
    if tree is None:
        return bool(re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE))
    return name in names_bound(tree, imported=False)


def _defining(group: list[str], name: str) -> int | None:
    """The last block that defines `name`; one that only announces it, where no other does."""
    found = [number for number, block in enumerate(group) if defines(block, name)]
    return next(
        (number for number in reversed(found) if not _announces(group[number], name)), found[-1] if found else None
    )


def _announces(code: str, name: str) -> bool:
    """Whether the function has a docstring, `pass` or `...` for a body."""
    tree = parsed(code)
    functions = [node for node in tree.body if isinstance(node, _FUNCTIONS) and node.name == name] if tree else []
    empty = (ast.Pass, ast.Expr)
    return bool(functions) and all(
        isinstance(node, empty) and isinstance(getattr(node, "value", ast.Constant(0)), ast.Constant)
        for node in functions[-1].body
    )


def _whole(code: str) -> str:
    """A block that is no program, as where its fence was not closed, to the line before its first error."""
    return code if parsed(code) is not None else "\n".join(_longest(code.split("\n"))) or code


def _bare(answer: str) -> list[str]:
    """What is a program in a text without fences, from each line that may begin one to the line before its first error."""
    lines, found, at = answer.split("\n"), [], 0
    while at < len(lines):
        code = _longest(lines[at:]) if _STARTS.match(lines[at]) else []
        if code:
            found.append("\n".join(code))
        at += max(len(code), 1)
    return found


def _indented(answer: str) -> list[str]:
    """As `_bare`, of the paragraphs that have a margin."""
    paragraphs, inside = [[]], False
    for line in answer.split("\n"):
        if line.strip() and line.startswith(("    ", "\t")) != inside:
            inside = not inside
            paragraphs.append([])
        paragraphs[-1].append(line)
    return [block for paragraph in paragraphs for block in _bare(dedented(paragraph))]


def _longest(lines: list[str]) -> list[str]:
    """As many lines as are a program, words of prose left out that could be one; none where that is not said by the places of
    the errors."""
    while lines:
        try:
            tree = ast.parse("\n".join(lines))
        except SyntaxError as error:
            lines = lines[: max(min(error.lineno or 1, len(lines)) - 1, 0)]
        except (ValueError, RecursionError, MemoryError):
            return []
        else:
            prose = next((node for node in tree.body if _is_prose(node)), None)
            return lines if prose is None else lines[: prose.lineno - 1]
    return []


def _is_prose(node: ast.stmt) -> bool:
    """`Explanation: recursion`, `Done`: a program that does nothing with what it names."""
    if isinstance(node, ast.AnnAssign):
        return node.value is None
    return isinstance(node, ast.Expr) and isinstance(
        node.value, ast.Name | ast.Attribute | ast.Compare | ast.BinOp | ast.Tuple
    )


def _completed(body: str, prompt: str, entry_point: str) -> str | None:
    """The prompt with a body, whatever margin the body has kept; None where it is not one that returns."""
    lines = body.strip("\n").split("\n")
    if not "".join(lines).strip():
        return None
    # Stripped, of its first margin too.
    margins = ("\n".join(lines), "\n".join([f"    {lines[0].lstrip()}", *lines[1:]]))
    for text in margins:
        code = f"{prompt.rstrip()}\n{textwrap.indent(textwrap.dedent(text), '    ')}\n"
        tree = parsed(code)
        function = next((n for n in tree.body if getattr(n, "name", "") == entry_point), None) if tree else None
        if function and _returns(function):
            return code
    return None


def _returns(node: ast.AST) -> bool:
    """Whether a function gives something back, what is defined within it left out."""
    if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
        return True
    apart = (*_FUNCTIONS, ast.ClassDef, ast.Lambda)
    return any(_returns(child) for child in ast.iter_child_nodes(node) if not isinstance(child, apart))
