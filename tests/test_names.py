"""What code reads of our own modules exists there, also in functions that no quick test calls."""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("specexit_jax", "launch", "configs", "tests")


def file_of(module: str) -> Path | None:
    """The file of one of our modules, a package's folder included; None of others."""
    places = [base / module.replace(".", "/") for base in (ROOT, ROOT / "tests")]
    found = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]
    return found[0] if found and found[0].relative_to(ROOT).parts[0] in FOLDERS else None


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """The names of a module, and the modules beside it if it is a package."""
    found, waiting = {"__file__", "__name__", "__doc__"}, ast.parse(path.read_text()).body
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)  # what lies within is its own
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        waiting.extend(ast.iter_child_nodes(node))
    return frozenset(found | ({other.stem for other in path.parent.iterdir()} if path.name == "__init__.py" else set()))


def absent(text: str) -> list[str]:
    """Each `module.name` that a text imports, or reads through the name of a module that it imports, and that is not there."""
    tree, modules, wanted = ast.parse(text), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and file_of(node.module):
            for alias in node.names:
                wanted.add((node.module, alias.name))
                if file_of(whole := f"{node.module}.{alias.name}"):
                    modules[alias.asname or alias.name] = whole
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            wanted.add((modules[node.value.id], node.attr))
    return sorted(f"{module}.{name}" for module, name in wanted if name not in names_in(file_of(module)))


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_of_own_modules_exist(folder):
    found = {path.relative_to(ROOT).as_posix(): absent(path.read_text()) for path in (ROOT / folder).rglob("*.py")}
    assert not {path: names for path, names in found.items() if names}


def test_planted_names_are_found():
    text = (
        "from specexit_jax.data import splits as s, nothing\n"
        "def late():\n"
        "    from specexit_jax.data.splits import sample, smaple\n"
        "    return s.Problem, s.Porblem, sample\n"
    )
    assert absent(text) == [
        "specexit_jax.data.nothing",
        "specexit_jax.data.splits.Porblem",
        "specexit_jax.data.splits.smaple",
    ]
