"""The documentation site: it builds without a warning, and its pages show what they should."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.browser import browser, find_chromium

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
# What is left of a formula that was not rendered. One dollar may be a price or a shell's prompt.
RAW_FORMULA = re.compile(r"\$[^$\n]+\$|\\\(|\\\[|\\(frac|theta|lambda|sum|phi|hat|mathrm|log)\b")
# The text of a page without code, and without the formulas themselves.
TEXT_IN_BROWSER = """(() => {
  const page = document.querySelector("article").cloneNode(true);
  page.querySelectorAll("pre, code, dt, math").forEach(e => e.remove());
  return page.textContent;
})()"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a broken link, a broken reference or any other warning fails."""
    pytest.importorskip("sphinx", reason="the group `docs` is not installed")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(out)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return out


def _pages(site: Path) -> list[Path]:
    return sorted(p for p in site.rglob("*.html") if "_static" not in p.parts)


class _Text(HTMLParser):
    """The text of a page outside of code, scripts and formulas; and how many formulas there are."""

    SKIPPED = frozenset(("pre", "code", "script", "style", "math", "dt", "title"))

    def __init__(self) -> None:
        super().__init__()
        self.text, self.maths, self.formulas, self.links = "", "", 0, list[str]()
        self._inside, self._in_formula = 0, False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside += tag in self.SKIPPED
        self._in_formula |= tag == "math"
        self.formulas += tag == "math"
        self.links += [value for name, value in attrs if name in ("href", "src") and value]

    def handle_endtag(self, tag: str) -> None:
        self._inside -= tag in self.SKIPPED
        self._in_formula &= tag != "math"

    def handle_data(self, data: str) -> None:
        if self._in_formula:
            self.maths += data
        elif not self._inside:
            self.text += data


def _read(page: Path) -> _Text:
    parser = _Text()
    parser.feed(page.read_text())
    return parser


def test_no_formula_is_left_as_source_and_theory_has_all_of_its_own(site: Path) -> None:
    for page in _pages(site):
        found = _read(page)
        raw = RAW_FORMULA.search(found.text)
        assert raw is None, f"{page.relative_to(site)}: {raw and raw[0]}"
        unknown = re.search(r"\\.{0,20}", found.maths)  # a command that the converter does not know
        assert unknown is None, f"{page.relative_to(site)}: {unknown and unknown[0]}"
    written = (ROOT / "docs/theory.md").read_text()
    display = re.findall(r"\$\$.*?\$\$", written, re.DOTALL)
    inline = re.findall(r"\$[^$]+\$", re.sub(r"\$\$.*?\$\$", "", written, flags=re.DOTALL))
    assert _read(site / "theory.html").formulas == len(display) + len(inline) > 0


def test_every_file_that_a_page_links_to_is_in_the_site(site: Path) -> None:
    for page in _pages(site):
        for link in _read(page).links:
            target = re.split(r"[#?]", link)[0]
            if target and not re.match(r"(https?|data|mailto):", target):
                assert (page.parent / target).exists(), f"{page.relative_to(site)}: {link}"


def test_the_reference_lists_every_public_name(site: Path) -> None:
    import mbrl_bilevel
    import mbrl_bilevel.agents
    import mbrl_bilevel.envs

    shown = (site / "api/generated/public.html").read_text()
    for module in (mbrl_bilevel, mbrl_bilevel.agents, mbrl_bilevel.envs):
        for name in getattr(module, "__all__", ()):
            assert not callable(getattr(module, name)) or f">{name}<" in shown, name


def test_pages_in_chromium_print_no_error_and_show_every_formula(
    site: Path, tmp_path: Path
) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with browser(program, tmp_path) as tab:
        for page in _pages(site):
            tab.open(page)
            name = str(page.relative_to(site))
            assert not tab.errors, (name, tab.errors)
            raw = RAW_FORMULA.search(tab.evaluate(TEXT_IN_BROWSER) or "")
            assert raw is None, (name, raw and raw[0])
            unknown = (
                "[...document.querySelectorAll('math')].filter(m => /[\\\\$]/.test(m.textContent))"
            )
            assert tab.evaluate(f"{unknown}.map(m => m.textContent)") == [], name
            # A formula that the browser cannot lay out has no size.
            empty = "[...document.querySelectorAll('math')].filter(m => !m.getClientRects().length)"
            assert tab.evaluate(f"{empty}.length") == 0, name
        tab.open(site / "theory.html")
        assert tab.evaluate("document.querySelectorAll('math mfrac').length") > 0
        # The test of the test: errors of a page are heard.
        tab.evaluate("console.error('heard')")
        assert tab.errors == ["['heard']"]
