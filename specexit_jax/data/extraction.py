"""The program in an answer: in fences or bare, whole or the body that completes the prompt."""

import ast
import re
import textwrap

_FENCE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>```+|~~~+)[ \t]*(?P<tag>\w*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*(?P=fence)|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = ("", "py", "python", "python3")
_STARTS = re.compile(r"^(?:def|class|from|import|async def|@)\b", re.MULTILINE)


def program(answer: str, prompt: str, entry_point: str) -> str | None:
    """The program that defines `entry_point`, or that completes `prompt` where the answer holds only a body; None where
    nothing can be meant as one.

    Of several fences the last that defines it counts, with the functions, classes and imports of those before it.
    """
    answer = answer.replace("\r\n", "\n")
    blocks = [textwrap.dedent(m["code"]) for m in _FENCE.finditer(answer) if m["tag"].lower() in _PYTHON]
    fenced = bool(blocks)
    if not fenced:
        blocks = _bare(answer)
    whole = [number for number, block in enumerate(blocks) if defines(block, entry_point)]
    if whole:
        return "\n\n".join([*map(_definitions, blocks[: whole[-1]]), blocks[whole[-1]]])
    for body in reversed(blocks if fenced else [answer]):
        if completed := _completed(body, prompt, entry_point):
            return completed
    return None


def opening(prompt: str) -> str:
    """The prompt as a program of its own: its imports and helpers, and the function with an empty body where it has no
    docstring; "" where it is none."""
    closed = f"{prompt.rstrip()}\n    pass\n"
    return next((text for text in (prompt, closed) if _tree(text) is not None), "")


def defines(code: str, name: str) -> bool:
    """Whether a program gives `name` a meaning at its top level."""
    tree = _tree(code)
    if tree is None:
        return bool(re.search(rf"^(?:async )?def {re.escape(name)}\b", code, re.MULTILINE))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.name == name:
            return True
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return True
    return False


def _tree(code: str) -> ast.Module | None:
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _bare(answer: str) -> list[str]:
    """What is a program in a text without fences, from each line that may begin one to the line before its first error."""
    lines, found, at = answer.splitlines(), [], 0
    while at < len(lines):
        code = _longest(lines[at:]) if _STARTS.match(lines[at]) else []
        if code:
            found.append("\n".join(code))
        at += max(len(code), 1)
    return ["\n\n".join(found)] if found else []


def _longest(lines: list[str]) -> list[str]:
    """As many lines as are a program; none where that is not said by the places of the errors."""
    while lines:
        try:
            ast.parse("\n".join(lines))
        except SyntaxError as error:
            lines = lines[: max(min(error.lineno or 1, len(lines)) - 1, 0)]
        except (ValueError, RecursionError, MemoryError):
            return []
        else:
            return lines
    return []


def _definitions(block: str) -> str:
    """The imports, functions, classes and constants of a block, without what it runs; "" where it is no program."""
    tree = _tree(block)
    if tree is None:
        return ""
    kept = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)
    return "\n\n".join(ast.unparse(node) for node in tree.body if isinstance(node, kept))


def _completed(body: str, prompt: str, entry_point: str) -> str | None:
    """The prompt with a body, whatever margin the body has kept; None where it is not one that returns."""
    lines = body.strip("\n").splitlines()
    if not lines:
        return None
    margins = (
        "\n".join(lines),
        "\n".join([f"    {lines[0].lstrip()}", *lines[1:]]),
    )  # stripped, of its first margin too
    for text in margins:
        code = f"{prompt.rstrip()}\n{textwrap.indent(textwrap.dedent(text), '    ')}\n"
        tree = _tree(code)
        function = next((n for n in tree.body if getattr(n, "name", "") == entry_point), None) if tree else None
        if function and _returns(function):
            return code
    return None


def _returns(node: ast.AST) -> bool:
    """Whether a function gives something back, what is defined within it left out."""
    if isinstance(node, ast.Return | ast.Yield | ast.YieldFrom):
        return True
    apart = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    return any(_returns(child) for child in ast.iter_child_nodes(node) if not isinstance(child, apart))
