"""Figures of one page: no id of one is another's."""

import re
from xml.etree import ElementTree

import matplotlib.pyplot as plt

from mbrl_bilevel.evaluation.inline_svg import inline_svg


def drawn():
    figure, axes = plt.subplots()
    axes.plot([0, 1], [2, 3], marker="o")
    axes.set_title("a & b")
    return figure


def test_two_figures_share_no_id_and_every_link_has_its_target():
    open_before = plt.get_fignums()
    first, second = (inline_svg(drawn(), prefix) for prefix in ("one", "two"))
    ids = [re.findall(r'\bid="([^"]+)"', text) for text in (first, second)]
    assert not set(ids[0]) & set(ids[1])
    for text, known in ((first, ids[0]), (second, ids[1])):
        links = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
        assert links
        assert {a or b for a, b in links} <= set(known)
    assert plt.get_fignums() == open_before


def test_it_is_one_element_with_its_texts_and_the_same_each_time():
    text = inline_svg(drawn(), "one")
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "a &amp; b" in text
    assert text == inline_svg(drawn(), "one")
