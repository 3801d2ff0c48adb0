"""A program put together from several blocks: one whole, and what the others define for it."""

import ast
import builtins

from specexit_jax.data.fences import parsed

_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_VALUES = (ast.Assign, ast.AnnAssign, ast.AugAssign, getattr(ast, "TypeAlias", ast.Assign))
_LOOPS = (ast.For, ast.While)
_OUTSIDE = frozenset(("input", "print", "open", "exit", "quit", "__name__"))  # a block that says this shows its use
_BUILT_IN = frozenset(dir(builtins)) | {"__name__", "__file__"}


def assembled(before: list[str], main: str, after: list[str], known: set[str], entry_point: str) -> str:
    """`main`, behind what the blocks before it define, and what it misses of that which the blocks after it define.

    known: names that are there anyway. Kept are functions, classes, imports and what gives names their values, but not what calls
    the entry point, reads, prints, or uses names that are not kept; `from __future__` moves to the top.
    """
    trees = [tree for tree in map(parsed, before) if tree]
    there, kept = set(known) | _BUILT_IN, []
    for tree in trees:
        kept += _definitions(tree, there, entry_point)
    whole = parsed(main)
    missing = (_read(whole) if whole else set()) - names_bound(whole) - there
    for tree in filter(None, map(parsed, after)):
        for node in _definitions(tree, set(there), entry_point):
            if (bound := _binds(node)) & missing:
                kept.append(node)
                missing = (missing | _read(node)) - bound - there
    parts = [node for node in kept if not _is_future(node)]
    future = [node for node in kept if _is_future(node)] + [
        node for node in (whole.body if whole else []) if _is_future(node)
    ]
    if not parts and not any(map(_is_future, kept)):
        return main
    if whole and any(map(_is_future, whole.body)):
        whole.body = [node for node in whole.body if not _is_future(node)]
        main = ast.unparse(whole)
    return "\n\n".join([*dict.fromkeys(map(ast.unparse, future)), *map(_told, parts), main])


def names_bound(tree: ast.Module | None, imported: bool = True) -> set[str]:
    """The names to which a program gives a meaning at its top level."""
    nodes = tree.body if tree else []
    return set().union(*(_binds(node) for node in nodes if imported or not isinstance(node, _IMPORTS)))


def _definitions(tree: ast.Module, there: set[str], entry_point: str) -> list[ast.stmt]:
    """What is kept of a block; `there`, the names that it may use, grows by its own."""
    kept = []
    for node in tree.body:
        if isinstance(node, (*_NAMED, *_IMPORTS)) or _recursion(node) or _gives_values(node, there, entry_point):
            kept.append(node)
            there |= _binds(node)
    return kept


def _gives_values(node: ast.stmt, there: set[str], entry_point: str) -> bool:
    """Whether a statement gives names their values out of what is there."""
    if isinstance(node, ast.Try | ast.If):
        parts = [*node.body, *node.orelse, *getattr(node, "finalbody", [])]
        parts += [part for handler in getattr(node, "handlers", []) for part in handler.body]
        if not all(isinstance(part, (*_NAMED, *_IMPORTS, *_VALUES, ast.Pass)) for part in parts):
            return False
    elif not isinstance(node, (*_VALUES, *_LOOPS)):
        return False
    if isinstance(node, ast.AnnAssign) and node.value is None:
        return False
    bound = {other.id for other in ast.walk(node) if isinstance(other, ast.Name) and isinstance(other.ctx, ast.Store)}
    bound |= _binds(node) | {other.arg for other in ast.walk(node) if isinstance(other, ast.arg)}
    read = _read(node)
    return not read & (_OUTSIDE | {entry_point}) and read <= there | bound


def _recursion(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and ast.unparse(node).startswith("sys.setrecursionlimit(")


def _binds(node: ast.AST) -> set[str]:
    if isinstance(node, _NAMED):
        return {node.name}
    if isinstance(node, _IMPORTS):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    names = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else set()
    if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return names
    return names.union(*map(_binds, ast.iter_child_nodes(node)))


def _read(node: ast.AST) -> set[str]:
    return {other.id for other in ast.walk(node) if isinstance(other, ast.Name) and isinstance(other.ctx, ast.Load)}


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _told(node: ast.stmt) -> str:
    """A definition's text; a value that cannot be had, as from a file, fails nothing but what uses it."""
    text = ast.unparse(node)
    calls = isinstance(node, _VALUES) and any(isinstance(other, ast.Call) for other in ast.walk(node))
    return f"try:\n    {text}\nexcept Exception:\n    pass" if calls and "\n" not in text else text
