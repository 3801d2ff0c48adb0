"""README, CONTRIBUTING and docs: their sizes, links, snippets, and tables, which are what the digests in docs/results say."""

import json
import re
import sys
from pathlib import Path

import pytest
from pages_case import Names

from launch.digest import command
from specexit_jax.evaluation.records import Record
from specexit_jax.evaluation.report import digest, pages
from specexit_jax.evaluation.report.publish import record_sections
from specexit_jax.evaluation.results import build_results

ROOT = Path(__file__).resolve().parent.parent
PAGES = pages.pages_of(ROOT)
README_LINES, PAGE_LINES, WIDTH = 180, 199, 180
names = [str(path.relative_to(ROOT)) for path in PAGES]
of_every_page = pytest.mark.parametrize("path", PAGES, ids=names)


def test_there_are_pages():
    assert {"README.md", "docs/method.md", "docs/results.md", "docs/glossary.md"} <= set(names)


@of_every_page
def test_a_page_is_short(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= (README_LINES if path.name == "README.md" else PAGE_LINES)
    prose = [line for line in lines if not line.startswith("|")]
    assert max(map(len, prose)) <= WIDTH, "a line that holds a paragraph is no line"


def anchors(text: str) -> set[str]:
    """Those that GitHub gives the headings outside code."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    words = (re.sub(r"[^\w\- ]", "", heading.lower().replace("\\", "")) for heading in headings)
    return {word.strip().replace(" ", "-") for word in words}


def broken(path: Path) -> list[str]:
    """Links to files and anchors that are not there, and files named in backticks that are not."""
    text, found = path.read_text(), []
    plain = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            found.append(target)
    named = re.findall(r"`((?:specexit_jax|launch|tests|configs|docs)/[\w./-]+\.\w+|[\w/]+/\w+\.py)`", plain)
    return found + [
        name for name in named if not any((folder / name).exists() for folder in (ROOT, ROOT / "specexit_jax"))
    ]


@of_every_page
def test_what_a_page_links_to_is_there(path):
    assert not broken(path)


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One, two!\n[a](#one-two) [b](page.md#one-two) [c](#three) [d](none.md)\n"
        "`launch/none.py` `exits/none.py` `exits/signals.py`\n```\n# code\n```\n"
    )
    assert broken(page) == ["#three", "none.md", "launch/none.py", "exits/none.py"]


def test_code_cites_sections_that_there_are():
    cited = set()
    for folder in ("specexit_jax", "launch", "configs", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            cited |= set(re.findall(r"(docs/\w+\.md) (§\d+)", path.read_text()))
    assert not [(page, section) for page, section in cited if f"\n## {section} " not in (ROOT / page).read_text()]


WRITTEN = {"report.md", "ablations.md"}  # by stages, into a workdir


def absent_documents(root: Path, files) -> list[tuple[str, str]]:
    """(file, document) where a named document is neither at the root, in docs, beside the file, nor written by a stage."""
    found = []
    for path in files:
        for name in set(re.findall(r"[\w./-]*\w\.(?:md|rst|pdf)\b", path.read_text())):
            places = (root / name, root / "docs" / name, path.parent / name)
            if Path(name).name not in WRITTEN and not any(place.exists() for place in places):
                found.append((path.name, name))
    return found


def test_no_file_cites_a_document_that_is_not_here():
    kinds = (".py", ".md", ".sh", ".txt", ".toml", ".ipynb")
    folders = ("specexit_jax", "launch", "configs", "tests", "docs")
    files = [path for path in ROOT.iterdir() if path.is_file()]
    files += [path for folder in folders for path in (ROOT / folder).rglob("*")]
    assert not absent_documents(ROOT, [path for path in files if path.suffix in kinds and path != Path(__file__)])


def test_an_absent_document_is_seen(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "method.md").write_text("see formats.md")
    code = tmp_path / "code.py"
    code.write_text('"""See docs/method.md, method.md, notes.md section 1, and report.md."""')
    found = absent_documents(tmp_path, [code, tmp_path / "docs" / "method.md"])
    assert found == [("code.py", "notes.md"), ("method.md", "formats.md")]


@of_every_page
def test_tables_are_what_their_results_say(path):
    text = path.read_text()
    assert text == pages.filled(text, ROOT / "docs" / "results"), "run python -m launch.pages --root=."


def test_every_digest_is_shown_and_says_where_it_comes_from():
    shown = {name for path in PAGES for name in re.findall(r"<!-- results: (\w+) \w+ -->", path.read_text())}
    files = {path.stem: json.loads(path.read_text()) for path in (ROOT / "docs" / "results").glob("*.json")}
    assert shown - {"paper"} == set(files)
    assert all(content[key] for content in files.values() for key in ("kind", "command", "device", "revision"))


def snippets() -> list[tuple[str, str]]:
    found = [
        (name, re.findall(r"^```python\n(.*?)^```", path.read_text(), re.M | re.S))
        for name, path in zip(names, PAGES, strict=True)
    ]
    return [(name, code) for name, codes in found for code in codes]


@pytest.mark.parametrize(("name", "code"), snippets(), ids=lambda value: value if value in names else "")
def test_python_on_a_page_names_what_there_is(name, code):
    """What needs a model is looked at (tests of the API run it); the rest is run."""
    looked = Names(code)
    assert not looked.wrong
    if "SpecExit" not in looked.scope:
        exec(compile(code, name, "exec"), {})


def test_a_snippet_that_names_what_there_is_not_is_seen():
    start = "from specexit_jax import SpecExit\nmodel = SpecExit.load()\n"
    wrong = {
        "answer = model.generate('x')\nanswer.exit.guarantee": "Exit has no guarantee",
        "model.generates('x')": "SpecExit has no generates",
        "model.generate('x', temprature=1)": "SpecExit.generate takes no temprature",
        "model.generate()": "SpecExit.generate: missing a required argument: 'prompt'",
        "for piece in model.stream('x'):\n    piece.tex": "Piece has no tex",
    }
    assert {code: Names(start + code).wrong[:1] for code in wrong} == {code: [told] for code, told in wrong.items()}
    assert not Names(start + "answer = model.generate('x', temperature=1.0)\nanswer.usage.generated_tokens").wrong


def record(method: str, number: int, **changes) -> Record:
    made = {
        "method": method, "task": "gcd", "id": f"{number}", "split": "test", "correct": True, "tokens": 300,
        "thinking_tokens": 290, "exit_index": None, "exited": False, "steps": 100, "accepted": (10, 20, 30, 40), "answer": "4",
        "finish": "stop", "source": "decode", "latency_s": 0.2,
    }  # fmt: skip
    return Record(**made | changes)


@pytest.fixture
def evaluated() -> dict:
    """results.json of 40 problems under two methods."""
    records = [record("eagle3", number) for number in range(40)]
    left = {"tokens": 150, "thinking_tokens": 140, "exit_index": 140, "exited": True, "latency_s": 0.1}
    records += [record("specexit", number, correct=number > 1, **left) for number in range(40)]
    extra = record_sections(records) | {"risk": {"risk": 0.05, "risk_ci95": [0.01, 0.17], "harmed": 2, "problems": 40}}
    return build_results(records, "cpu (x86_64)", "0123456789abcdef" * 2 + "01234567", {"jax": "0"}, extra=extra)


def test_an_evaluation_becomes_the_table_of_a_page(evaluated, tmp_path):
    digest.save_digest(
        tmp_path / "run.json", "evaluation", "python -m launch.evaluate --limit=40", digest.of_results(evaluated)
    )
    page = "# P\n<!-- results: run table -->\nold\n<!-- end -->\nkept\n<!-- results: run summary -->\n<!-- end -->\n"
    text = pages.filled(page, tmp_path)
    assert (
        "| **specexit** | 95.0 (" in text
        and ") | 150 | 0.100 | 3.00 | 100 |" in text
        and "old" not in text
        and "\nkept\n" in text
    )
    assert "`python -m launch.evaluate --limit=40`. cpu (x86_64). Revision 0123456." in text
    assert (
        "50.0 % (50.0 to 50.0) fewer tokens and is 2.00 times (2.00 to 2.00) as" in text
        and "2 right answers of 40" in text
    )
    assert "−5.00 points" in text and "5.00 % (1.00 to 17.00)" in text
    assert pages.filled(text, tmp_path) == text
    content = json.loads((tmp_path / "run.json").read_text())
    content["methods"]["specexit"]["tokens_mean"] = 151
    (tmp_path / "run.json").write_text(json.dumps(content))
    assert "| 151 |" in pages.filled(text, tmp_path) and pages.filled(text, tmp_path) != text


def test_a_digest_tells_the_command_that_made_it(monkeypatch):
    words = [
        "/clone/launch/evaluate.py",
        "--config=configs/embedded.py:demo",
        "--digest=x.json",
        "--methods=think, probe",
        "--digest",
        "y",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert command() == "python -m launch.evaluate --config=configs/embedded.py:demo '--methods=think, probe'"


def test_certified_runs_become_tables(tmp_path):
    rows = [{"epsilon": 0.01, "tokens_ratio": 0.492, "harmed": 45, "problems": 6000, "risk_upper": 0.00961, "smoothing": "none"},
            {"epsilon": 0.001, "refused": "too few"}]  # fmt: skip
    digest.save_digest(tmp_path / "f.json", "frontier", "c", digest.of_rows("frontier", rows))
    text = pages.filled("<!-- results: f table -->\n<!-- end -->", tmp_path)
    assert "| 1 % | −50.8 % | 45 of 6,000 | 0.96 % |" in text and "| 0.1 % | refused | – | – |" in text
    assert "smoothing" not in (tmp_path / "f.json").read_text()
    pair = {
        "tokens_ratio": {"value": 0.5, "ci95": [0.4, 0.6]},
        "accuracy_difference": {"value": -0.01, "ci95": [-0.02, 0.0]},
    }
    rows = [
        {"table": "rule", "arm": "default", "harmed": 3, "mended": 1, **pair},
        {"table": "rule", "arm": "deer", "refused": "none"},
    ]
    digest.save_digest(tmp_path / "a.json", "ablations", "c", digest.of_rows("ablations", rows))
    text = pages.filled("<!-- results: a table -->\n<!-- end -->", tmp_path)
    assert "| rule | default | −50.0 (−60.0 to −40.0) | −1.00 (−2.00 to 0.00) | 3 | 1 |" in text
    assert "| rule | deer | refused | – | – | – |" in text
    rows = [{"traces": 4798, "boundaries": 88777.0, "auc": 0.97154, "saved": 0.6531}]
    digest.save_digest(tmp_path / "l.json", "learning_curve", "c", digest.of_rows("learning_curve", rows))
    text = pages.filled("<!-- results: l table -->\n<!-- end -->", tmp_path)
    assert "| 4,798 | 88,777 | 0.9715 | 65.3 % |" in text


def test_a_mark_that_names_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="the results 'none', but .* does not exist"):
        pages.filled("<!-- results: none table -->\n<!-- end -->", tmp_path)
    digest.save_digest(tmp_path / "f.json", "frontier", "c", digest.of_rows("frontier", []))
    with pytest.raises(ValueError, match="its view is one of \\['table'\\], not 'summary'"):
        pages.filled("<!-- results: f summary -->\n<!-- end -->", tmp_path)


def test_pages_are_written_where_results_changed(tmp_path):
    (tmp_path / "docs" / "results").mkdir(parents=True)
    content = {
        "kind": "table",
        "command": "c",
        "device": "d",
        "revision": "r",
        "columns": ["a", "b"],
        "rows": [["1", "2"]],
    }
    (tmp_path / "docs" / "results" / "t.json").write_text(json.dumps(content))
    (tmp_path / "README.md").write_text("<!-- results: t table -->\n<!-- end -->\n")
    (tmp_path / "docs" / "other.md").write_text("nothing\n")
    assert pages.write_pages(tmp_path) == [tmp_path / "README.md"]
    assert "| 1 | 2 |\n\n`c`. d. Revision r." in (tmp_path / "README.md").read_text()
    assert pages.write_pages(tmp_path) == []
