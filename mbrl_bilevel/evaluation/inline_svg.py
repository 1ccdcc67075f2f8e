"""Figures as SVG elements that can stand in one HTML page."""

import io
import re

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

FONTS = ["DejaVu Sans", "Verdana", "sans-serif"]  # Verdana has the widths of DejaVu Sans


def inline_svg(figure: Figure, prefix: str) -> str:
    """The figure's <svg> element, the same at each call; frees the figure.

    Ids and the links to them begin with `prefix`, as those of other figures in the page may be the
    same otherwise. Texts stay texts.
    """
    written = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.sans-serif": FONTS}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = written.getvalue()
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text[text.index("<svg") :])
