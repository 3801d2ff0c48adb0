"""The report as one page: it has every section and figure, loads nothing from elsewhere, and escapes all text of models."""

import re
from html.parser import HTMLParser

import pytest
from evaluated_case import POLICY, Words, write_evaluated

from specexit_jax.evaluation.pipeline.from_records import recompute
from specexit_jax.evaluation.report.page import report_page
from specexit_jax.evaluation.report.pictures import CAPTIONS

SECTIONS = [
    "Overall", "By task", "Paired, over the same problems", "What could be saved", "Accuracy against tokens",
    "Signals along traces", "Where exits fall (T* = stable)", "Where exits fall (T* = first)", "Reliability of confidence",
    "Acceptance", "Acceptance against position", "Latency by part", "The 10 worst exits",
]  # fmt: skip
PIXEL = b"\x89PNG\r\n\x1a\n"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """What a page holds; every tag must be closed by its own."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.headings, self.pre, self.open = [], [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "h2" in self.open:
            self.headings[-1] += data
        if "pre" in self.open:
            self.pre += data


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    workdir = tmp_path_factory.mktemp("evaluated")
    write_evaluated(workdir)
    recompute(workdir, "test", POLICY, Words())
    return (workdir / "report.html").read_text()


def foreign(page: Page) -> list[tuple]:
    """Attributes that would load or link to something outside the page."""
    found = [
        one for one in page.attributes if one[1] in ("src", "href", "srcset", "action", "data", "background", "poster")
    ]
    return [one for one in found if not one[2].startswith(("#", "data:image/png;base64,"))]


def test_every_section_is_there_in_order_and_in_the_contents(page):
    read = Page(page)
    assert read.headings == SECTIONS
    targets = [value[1:] for tag, name, value in read.attributes if (tag, name) == ("a", "href")]
    assert targets == [value for tag, name, value in read.attributes if (tag, name) == ("h2", "id")]
    assert len(set(targets)) == len(SECTIONS)


def test_every_figure_is_inside(page):
    read = Page(page)
    captions = {value for tag, name, value in read.attributes if (tag, name) == ("img", "alt")}
    assert captions == set(CAPTIONS.values())
    sources = [value for tag, name, value in read.attributes if (tag, name) == ("img", "src")]
    assert all(value.startswith("data:image/png;base64,iVBORw0KGgo") for value in sources)


def test_nothing_comes_from_elsewhere(page):
    read = Page(page)
    assert foreign(read) == []
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(read.tags)
    style = re.search(r"<style>(.*)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style


def test_what_a_model_wrote_is_shown_and_not_obeyed(page):
    read = Page(page)
    assert "<script>alert('x')</script> ```\n![](http://x.y/z.png)" in read.pre
    assert "<b>How many</b> | 3?" in read.pre and "no <1>" in read.pre
    assert "b" not in read.tags


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "<img src=http://x.y/z.png>", "![a](http://x.y/z.png)", "[a](http://x.y)",
    "<http://x.y>", "[a](javascript:alert(1))", "[a]: http://x.y\n\n[a]", "| a |\n|---|\n| <img src=x> |",
    "![a](data:image/png;base64,AAAA)", "[a](report/one.png)",
])  # fmt: skip
def test_no_markdown_reaches_out(text):
    read = Page(report_page(f"# T\n\n![fine](report/one.png)\n\n{text}\n", {"report/one.png": PIXEL}))
    assert foreign(read) == []
    assert read.tags.count("img") == 1 and "script" not in read.tags and "a" not in read.tags


def test_tables_are_aligned_and_titles_escaped():
    text = report_page("# A <i>\n\n## B & <c>\n\n| x | y |\n|---|---:|\n| 1 | 2 |\n", {})
    assert "<title>A &lt;i&gt;</title>" in text and '<a href="#b-c">B &amp; &lt;c&gt;</a>' in text
    assert '<td style="text-align:right">2</td>' in text
    assert text.count("<h1>") == 1 and text.index("<h1>A &lt;i&gt;</h1>") < text.index("<nav") < text.index("<h2")
    assert "<h1>" not in report_page("## B\n", {})


def test_wide_tables_wrap_between_numbers_and_scroll_by_themselves():
    cells = ["100.0 (61.0–100.0) / 17 / 0.30", "−15.8 % (−16.0 to −15.6)", "think, paper: Qwen3-4B-Thinking-2507"]
    text = report_page(
        "## B\n\n| x | y | z |\n|---|---:|---:|\n| " + " | ".join(cells) + " |\n\nOutside (1) / 2.\n", {}
    )
    assert "<span>100.0</span> <span>(61.0–100.0)</span> / <span>17</span> / <span>0.30</span></td>" in text
    assert "<span>−15.8 %</span> <span>(−16.0 to −15.6)</span></td>" in text
    assert (
        "<td>think, paper: Qwen3-4B-Thinking-2507</td>" not in text
        and "think, paper: Qwen3-4B-Thinking-2507</td>" in text
    )
    assert "Outside (1) / 2." in text
    style = re.search(r"<style>(.*)@media print", text, re.DOTALL)[1]
    rules = {name.strip(): body for name, body in re.findall(r"([^{}]+)\{([^{}]*)\}", style)}
    assert "overflow-x: auto" in rules[".wide"] and "nowrap" not in rules["th, td"] and "nowrap" in rules["td span"]
    assert "position: sticky" in rules["th:first-child, td:first-child"]
    assert text.count('<div class="wide"><table>') == text.count("</table></div>") == 1
    assert "<script>" not in report_page("| <script> / (x) |\n|---|\n| <b> / (<i>) |\n", {})
