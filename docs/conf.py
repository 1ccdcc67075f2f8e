"""How the documentation site is built: `uv run sphinx-build -W -b html docs docs/_build`."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

import mbrl_bilevel

project = "mbrl-bilevel"
copyright = "the authors of mbrl-bilevel, MIT licence"
version = release = mbrl_bilevel.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"mbrl-bilevel {version}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
nitpicky = False  # annotations name types of torch, whose pages a build without network cannot read

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88

PACKAGES = [
    *("data", "models", "objectives", "rewards", "bilevel", "training", "planning"),
    *("evaluation", "sanity", "agents", "envs"),
]
PUBLIC = ["mbrl_bilevel", "mbrl_bilevel.agents", "mbrl_bilevel.envs"]
GENERATED = Path(__file__).parent / "api" / "generated"


def _heading(text: str) -> str:
    return f"{text}\n{'=' * len(text)}\n\n"


def write_api_pages(app: Sphinx) -> None:
    """One page a package, with all its modules, and one of the public names."""
    pages = {}
    for package in PACKAGES:
        folder = Path(mbrl_bilevel.__file__).parent / package
        names = sorted(m.name for m in pkgutil.iter_modules([str(folder)]))
        modules = [f"mbrl_bilevel.{package}", *(f"mbrl_bilevel.{package}.{n}" for n in names)]
        parts = [f"{_heading(m)}.. automodule:: {m}\n" for m in modules]
        pages[package] = "\n".join([parts[0], *(p.replace("=", "-") for p in parts[1:])])
    for module in ("protocols", "errors"):
        pages[module] = (
            f"{_heading(f'mbrl_bilevel.{module}')}.. automodule:: mbrl_bilevel.{module}\n"
        )
    pages["public"] = _heading("Public names") + "\n".join(map(_names_of, PUBLIC))
    GENERATED.mkdir(exist_ok=True)
    for path in GENERATED.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = GENERATED / f"{name}.rst"
        if not path.exists() or path.read_text() != text:  # else Sphinx would read it again
            path.write_text(text)


def _names_of(module: str) -> str:
    """A list of a module's public names, each with a link and the first line of its docstring."""
    here = importlib.import_module(module)
    lines = [f"From ``{module}``:", ""]
    for name in getattr(here, "__all__", ()):
        thing = getattr(here, name)
        if isinstance(thing, type) or callable(thing):
            first = (thing.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
            summary = _escape(" ".join(first.split()))
            lines.append(f"- :py:obj:`{name} <{thing.__module__}.{thing.__qualname__}>`: {summary}")
    return "\n".join(lines) + "\n\n"


CODE = re.compile(r"(``.+?``|`[^`]+`)")
SECTION = re.compile(r"(Args|Raises|Returns|Yields|Attributes|Example|Examples|Note):$")
ENTRY = re.compile(r" {4}(\S[^:]*): (.*)")


def _escape(line: str) -> str:
    """Plain text as reStructuredText: only code in backticks keeps a meaning."""
    parts = CODE.split(line)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"([\\*|_`])", r"\\\1", parts[i])
    for i in range(1, len(parts), 2):
        parts[i] = f"``{parts[i].strip('`')}``"
    return "".join(parts)


def _section_line(line: str, above: str) -> str:
    """A line under "Args:" as an entry of a list, or as one more line of it."""
    entry = ENTRY.match(line)
    if entry:
        return f"- ``{entry[1]}``: {_escape(entry[2])}"
    continued = above.startswith(("- ", "  ")) and bool(line)
    return ("  " if continued else "") + _escape(line.strip())


def plain_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Docstrings here are plain text, with code in backticks; indented lines are formulas."""
    text = re.sub(r"`(?:[^`\n]|\n(?!\n))+`", lambda m: " ".join(m[0].split()), "\n".join(lines))
    out: list[str] = []
    section = listed = False  # whether an indented paragraph goes on with "Args:", or with a list
    for paragraph in text.split("\n\n"):
        rows = paragraph.strip("\n").split("\n")
        if not rows[0].startswith(" "):
            section, listed = bool(SECTION.match(rows[0])), rows[0].startswith("- ")
        indented = any(row.startswith("    ") for row in rows)
        if section:
            for row in rows:
                heading = SECTION.match(row)
                above = out[-1] if out else ""
                out += [f"**{row[:-1]}**", ""] if heading else [_section_line(row, above)]
        elif indented and not listed:
            out += ["::", "", *(f"    {row}" for row in rows)]
        else:
            out += map(_escape, rows)
        out.append("")
    lines[:] = out


def _as_mathml(self: Any, node: nodes.math | nodes.math_block) -> None:
    """A formula as MathML, which browsers draw without a script."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    self.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_node(nodes.math, override=True, html=(_as_mathml, None))
    app.add_node(nodes.math_block, override=True, html=(_as_mathml, None))
    app.connect("builder-inited", write_api_pages)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)
