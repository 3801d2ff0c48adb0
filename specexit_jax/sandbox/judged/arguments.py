"""What tests look at, read from their text. They may hold megabytes of numbers: those are not walked through."""

import ast
import builtins
import re


def free(code):
    """The names of a compiled module that may be neither its own nor built in, nor Python's; attributes are among them."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if hasattr(constant, "co_names"):
            names |= free(constant)
    return {name for name in names - set(dir(builtins)) if not name.startswith("__")}


def looked_at(text, names):
    """Whether the tests may see what the functions `names`, or the one that `check` is given, do to their arguments.

    They do where a name that stands in a call's arguments is read in another statement than the call's own, and where such a
    function is handed on. In `assert f(xs) == sorted(xs)` nothing is seen of it: else a program could change the question.
    """
    tree, lines = ast.parse(text), text.split("\n")
    scopes = [[*_statements(tree.body)]]
    scopes += [[*_statements(one.body)] for one in scopes[0] if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
    checks = [one for one in scopes[0] if isinstance(one, ast.FunctionDef) and one.name == "check" and one.args.args]
    names = names | {check.args.args[0].arg for check in checks}
    return any(_seen(statements, names, lines) for statements in scopes)


def _statements(body):
    """All of a block, those within others too."""
    for one in body:
        yield one
        for block in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(one, block, []))
        for part in (*getattr(one, "handlers", []), *getattr(one, "cases", [])):
            yield from _statements(part.body)


def _seen(statements, names, lines):
    passed = {}  # by statement: what it calls them with
    for one in _mentioning(statements, names, lines):
        nodes = [*_own(one)]
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        called = [call for call in calls if getattr(call.func, "id", None) in names]
        to_check = [arg for call in calls if getattr(call.func, "id", None) == "check" for arg in call.args]
        fine = {id(node) for node in (*(call.func for call in called), *to_check)}
        if any(_reads(node) and node.id in names and id(node) not in fine for node in nodes):
            return True  # handed on
        passed[one] = _variables(
            arg for call in called for arg in (*call.args, *(named.value for named in call.keywords))
        )
    return any(
        wanted & {node.id for node in _own(other) if _reads(node)}
        for one, wanted in passed.items()
        for other in _mentioning(statements, wanted, lines)
        if other is not one
    )


def _mentioning(statements, names, lines):
    """The statements in whose text one of the names is found."""
    if not names:
        return []
    any_of = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})\b")
    return [one for one in statements if any_of.search("\n".join(lines[one.lineno - 1 : one.end_lineno]))]


def _variables(expressions):
    """The names that are read, but for functions that are called and modules."""
    names = set()
    for expression in expressions:
        nodes = [*ast.walk(expression)]
        apart = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        apart |= {
            id(node.func.value) for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        names |= {node.id for node in nodes if _reads(node) and id(node) not in apart}
    return names


def _reads(node):
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)


def _own(statement):
    """The nodes of a statement, without the statements in it."""
    stack = [statement]
    while stack:
        node = stack.pop()
        yield node
        stack += [child for child in ast.iter_child_nodes(node) if not isinstance(child, ast.stmt)]
