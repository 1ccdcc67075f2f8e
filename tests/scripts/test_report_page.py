"""The page and its Markdown: what stands in them, and what texts out of files cannot do there."""

from html.parser import HTMLParser

from mbrl_bilevel.evaluation.returns import Estimate
from mbrl_bilevel.scripts.report_page import Report, as_html, as_markdown
from mbrl_bilevel.scripts.report_parts import Picture, Section, Table
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import agent_run

HOSTILE = "<script>alert(1)</script>|\"'"


def report(tmp_path):
    run = read_run(agent_run(tmp_path / "run", 7, {1: 1.0}, note=HOSTILE))
    rows = [[HOSTILE, Estimate(0.25, (0.1, 0.5))], ["b", None]]
    parts = [
        Table("returns", "Returns", ["group", "return"], rows, note=HOSTILE),
        Table("runs", "Every run", ["group"], [["a"]], folded=True),
        Picture(HOSTILE, "a figure", svg="<svg id='x'></svg>"),
        Picture("a map", "a picture", png="AAAA"),
    ]
    section = Section("Hopper-v5: agents", [HOSTILE], parts)
    return Report("Runs", "mbrl-bilevel report x", [section], [f"x: {HOSTILE}"], [run])


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_whole_needs_nothing_else_and_escapes_what_it_shows(tmp_path):
    text = as_html(report(tmp_path))
    page = Elements()
    page.feed(text)
    assert page.open == []
    assert {"script", "link", "iframe"} & set(page.tags) == set()
    named = [a for _, a in page.attributes if "src" in a or "href" in a]
    targets = [a.get("src", a.get("href")) for a in named]
    assert all(t.startswith(("#", "data:")) or t.endswith(".csv") for t in targets)
    assert "<svg id='x'></svg>" in text
    headers = [a.get("scope") for tag, a in page.attributes if tag == "th"]
    assert headers == ["col", "col", "row", "row", "col", "row"]
    labels = [a["aria-label"] for _, a in page.attributes if a.get("role") == "img"]
    assert labels == [HOSTILE]
    assert [a["alt"] for tag, a in page.attributes if tag == "img"] == ["a map"]
    assert "0.25 [0.1, 0.5]" in text
    assert str(tmp_path / "run") in text
    assert "seed: 7" in text


def test_markdown_has_every_table_and_every_row_its_cells(tmp_path):
    lines = as_markdown(report(tmp_path)).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| group | return |"
    assert table[1] == "| --- | ---: |"
    assert table[2] == "| &lt;script>alert(1)&lt;/script>\\|\"' | 0.25 [0.1, 0.5] |"
    assert [line for line in lines if line.startswith("#")] == [
        *("# Runs", "## Hopper-v5: agents", "### Returns", "### Every run"),
    ]
    assert not any("<script>" in line for line in lines)
