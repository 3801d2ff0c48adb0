"""The packages: which import which, without a circle, and how few loose modules there are."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "specexit_jax"
GROUND = ("__init__", "array_typing", "backend", "notes")  # the loose modules
# From low to high: a room imports rooms that stand before it, and none that stands behind.
ROOMS = (
    "array_typing",
    "backend",
    "parallel",
    "notes",
    "storage",
    "monitoring",
    "sandbox",
    "models",
    "exits",
    "data",
    "decoding",
    "engine",
    "training",
    "annotation",
    "sizing",
    "evaluation",
    "api",
    "serving",
)
APART = {  # rooms that stand side by side: none of these imports another of them
    frozenset({"models", "exits"}),
    frozenset({"models", "data"}),
    frozenset({"exits", "data"}),
    frozenset({"engine", "training"}),
}


def imports(package: Path) -> dict[str, set[str]]:
    """Modules of a package by dotted name, and those that each imports, at its top or within a function."""
    files = {_name(package, path): path for path in package.rglob("*.py")}
    found = {}
    for name, path in files.items():
        found[name] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
                found[name] |= {each if each in files else node.module for each in wanted} & files.keys()
            elif isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & files.keys()
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The names along one circle of a graph; empty where there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name not in done:
            for other in sorted(graph.get(name, ())):
                if found := walk(other, [*way, name]):
                    return found
            done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def rooms(modules: dict[str, set[str]], room_of) -> dict[str, set[str]]:
    """The same between rooms."""
    found: dict[str, set[str]] = {}
    for name, others in modules.items():
        found.setdefault(room_of(name), set()).update(
            room_of(other) for other in others if room_of(other) != room_of(name)
        )
    return found


def _name(package: Path, path: Path) -> str:
    return ".".join((package.name, *path.relative_to(package).with_suffix("").parts)).removesuffix(".__init__")


def _storey(name: str) -> str:
    """The room on the ground floor that a module lies in."""
    return [*name.split("."), "__init__"][1]


def _folder(name: str) -> str:
    """The folder that a module lies in; a loose module is a room of its own."""
    parts = name.split(".")[1:]
    return ".".join(parts[:-1]) or ".".join(parts) or "__init__"


@pytest.fixture(scope="module")
def modules():
    return imports(PACKAGE)


def test_no_module_imports_itself_by_way_of_others(modules):
    assert not circle(modules)


@pytest.mark.parametrize("room_of", [_storey, _folder])
def test_no_room_imports_itself_by_way_of_others(modules, room_of):
    assert not circle(rooms(modules, room_of))


def test_rooms_import_those_below_them(modules):
    between = rooms({name: others for name, others in modules.items() if name != PACKAGE.name}, _storey)
    assert between.keys() <= set(ROOMS)
    wrong = [
        (room, other)
        for room, others in between.items()
        for other in others
        if other == "__init__" or ROOMS.index(other) > ROOMS.index(room) or frozenset({room, other}) in APART
    ]
    assert not wrong


def test_at_most_four_modules_lie_on_the_ground_floor():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(GROUND)
    assert len(GROUND) <= 4


def test_every_room_says_what_it_holds():
    silent = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("__init__.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_the_way_of_a_request_is_told_as_it_is(modules):
    """Its steps, at the head of generate.py and in CONTRIBUTING: the files are there, and none imports one of a later step.

    Two serve several steps: a prompt that fills the context has its outcome at once, and a slot is made for a spec.
    """
    told = ast.get_docstring(ast.parse((PACKAGE / "engine" / "generate.py").read_text())).partition("\n\n")[2]
    assert [line.split()[0] for line in told.splitlines()] == ["checked", "prepared", "placed", "decoded", "outcome"]
    assert told in (PACKAGE.parent / "CONTRIBUTING.md").read_text() and (PACKAGE / "decoding" / "loop").is_dir()
    steps = {
        f"{PACKAGE.name}.engine.{name}": step
        for step, line in enumerate(told.splitlines())
        for name in re.findall(r"(\w+)\.py", line)
    }
    assert len(steps) == 8 and steps.keys() <= modules.keys()
    several = {f"{PACKAGE.name}.engine.{name}" for name in ("outcomes", "specs")}
    ways = [(name, other) for name in steps for other in (modules[name] & steps.keys()) - several]
    assert ways and not [(name, other) for name, other in ways if steps[other] > steps[name]]


def test_planted_circles_are_found(tmp_path):
    package = tmp_path / "house"
    for name, text in {
        "low/a.py": "from house.high import b\n",
        "high/b.py": "def late():\n    import house.low.c\n",
        "low/c.py": "x = 1\n",
        "high/d.py": "from house.high.e import x\n",
        "high/e.py": "from house.high import d\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    found = imports(package)
    assert circle(found) == ["house.high.d", "house.high.e"]
    assert sorted(circle(rooms(found, _storey))) == ["high", "low"]


def test_a_slot_is_a_row_that_takes_requests():
    """Caches have a capacity and positions (docs/glossary.md)."""
    files = [*(PACKAGE / "models").rglob("*.py"), *(PACKAGE / "decoding" / "forced").rglob("*.py")]
    assert len(files) > 10 and not [path.name for path in files if "slot" in path.read_text().lower()]
