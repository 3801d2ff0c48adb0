"""Python snippets of the pages, looked at without being run."""

import ast
import importlib
import inspect
import types
import typing


class Names:
    """The types of the names and attributes of a snippet, from annotations; nothing runs."""

    def __init__(self, code: str):
        self.tree, self.scope, self.wrong = ast.parse(code), {}, []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                self.scope |= {each.asname or each.name: getattr(module, each.name) for each in node.names}
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.scope[node.targets[0].id] = self.kind(node.value)
            elif isinstance(node, ast.For) and isinstance(node.target, ast.Name):
                self.scope[node.target.id] = (typing.get_args(self.kind(node.iter)) or (None,))[0]
        for node in ast.walk(self.tree):
            self.kind(node)

    def kind(self, node: ast.AST) -> typing.Any:
        """The class, function or annotation of an expression; None where it is not known."""
        if isinstance(node, ast.Name):
            return self.scope.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.kind(node.value)
            return None if owner is None else self.attribute(owner, node.attr)
        if isinstance(node, ast.Call) and callable(called := self.kind(node.func)):
            self.fits(node, called)
            return _present(typing.get_type_hints(called).get("return")) if inspect.isroutine(called) else called
        return None

    def attribute(self, owner: typing.Any, name: str) -> typing.Any:
        if not isinstance(owner, type):
            return None
        hints = typing.get_type_hints(owner)
        if name not in hints and not hasattr(owner, name):
            self.wrong.append(f"{owner.__name__} has no {name}")
        found = getattr(owner, name, None)
        if isinstance(found, property):
            return _present(typing.get_type_hints(found.fget).get("return"))
        return found if inspect.isroutine(found) else _present(hints.get(name))

    def fits(self, node: ast.Call, called: typing.Callable) -> None:
        """The arguments against the signature; of `**settings: Unpack[Settings]` the names too."""
        signature = inspect.signature(called)
        first = [None] if next(iter(signature.parameters), "") == "self" else []
        words = [each.arg for each in node.keywords]
        rest = [each for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
        named = {name for each in rest for one in typing.get_args(each.annotation) for name in one.__annotations__}
        try:
            signature.bind(*first, *node.args, **dict.fromkeys(words))
        except TypeError as error:
            self.wrong.append(f"{called.__qualname__}: {error}")
        if named and (unknown := set(words) - named - set(signature.parameters)):
            self.wrong.append(f"{called.__qualname__} takes no {', '.join(sorted(unknown))}")


def _present(annotation: typing.Any) -> typing.Any:
    """Without its None."""
    kinds = [each for each in typing.get_args(annotation) if each is not type(None)]
    return kinds[0] if isinstance(annotation, types.UnionType) else annotation
