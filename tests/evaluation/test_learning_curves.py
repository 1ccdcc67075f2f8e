"""The lines that are drawn carry the numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mbrl_bilevel.evaluation.figures import GREY
from mbrl_bilevel.evaluation.learning_curves import learning_curves, mean_at


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def drawn(figure):
    """Of each agent: its mean line, its seeds' lines and the edges of its shade."""
    (axes,) = figure.axes
    means = {line.get_label(): line for line in axes.lines if line.get_linewidth() > 1}
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    seeds = {
        name: [line.get_ydata() for line in thin if line.get_color() == mean.get_color()]
        for name, mean in means.items()
    }
    shades = [shade.get_paths()[0].vertices for shade in axes.collections]
    return means, seeds, dict(zip(means, shades, strict=True))


def test_means_seeds_and_shades_as_far_as_all_seeds_go():
    ours = [{0: 1.0, 100: 4.0, 200: 10.0}, {100: 8.0, 200: 20.0, 300: 7.0}]
    peer = [{0: -1.0, 50: -2.0}]
    figure = learning_curves({"ours": ours, "peer": peer}, "returns on Hopper")
    means, seeds, shades = drawn(figure)
    assert list(means) == ["ours (2 seeds)", "peer (1 seed)"]
    np.testing.assert_array_equal(means["ours (2 seeds)"].get_xydata(), [[100, 6], [200, 15]])
    np.testing.assert_array_equal(means["peer (1 seed)"].get_xydata(), [[0, -1], [50, -2]])
    np.testing.assert_array_equal(seeds["ours (2 seeds)"], [[4, 10], [8, 20]])
    corners = {tuple(point) for point in shades["ours (2 seeds)"]}
    assert corners == {(100.0, 4.0), (100.0, 8.0), (200.0, 10.0), (200.0, 20.0)}
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "returns on Hopper"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "return")


def test_seeds_that_share_no_step_are_interpolated_as_far_as_both_go():
    """At 50, 100, 150 the first has 5, 10, 15 and the second 20, 25, 30."""
    seeds = [{0: 0.0, 100: 10.0, 200: 20.0}, {50: 20.0, 150: 30.0}]
    means, lines, _ = drawn(learning_curves({"ours": seeds}, "t"))
    mean = means["ours (2 seeds)"].get_xydata()
    np.testing.assert_allclose(mean, [[50, 12.5], [100, 17.5], [150, 22.5]])
    np.testing.assert_allclose(lines["ours (2 seeds)"], [[5, 10, 15], [20, 25, 30]])


def test_no_agent_is_left_out_however_many_there_are():
    agents = {f"agent {i}": [{0: float(i), 1: 2.0 * i}] for i in range(6)}
    (axes,) = learning_curves(agents, "many").figure.axes
    lines = [line for line in axes.lines if line.get_linewidth() > 1]
    assert [line.get_ydata()[1] for line in lines] == [0, 2, 4, 6, 8, 10]


def test_published_means_are_interpolated_as_far_as_the_agents_go():
    """Seeds 0, 10, 20 at 0, 100, 200 and 20, 20 at 0, 200: 10, 15 and 20 at 0, 100 and 200."""
    published = {"peer": [{0: 0.0, 100: 10.0, 200: 20.0, 400: 0.0}, {0: 20.0, 200: 20.0}]}
    (axes,) = learning_curves({"ours": [{0: 1.0, 300: 2.0}]}, "t", published).figure.axes
    (line,) = (line for line in axes.lines if line.get_label() == "peer, published (2 seeds)")
    assert line.get_color() == GREY
    points = {int(x): y for x, y in line.get_xydata()}
    assert (points[0], points[90], points[180]) == pytest.approx((10.0, 14.5, 19.0))
    assert max(points) <= 200  # where the shorter seed ends
    assert mean_at(published["peer"], 100) == pytest.approx(15.0)
    assert mean_at(published["peer"], 300) is None


def test_many_names_stand_beside_the_curves_in_colours_of_their_own():
    agents = {f"agent {i}": [{0: float(i), 1: 2.0 * i}] for i in range(9)}
    figure = learning_curves(agents, "many", ylabel="held-out NLL")
    (axes,) = figure.axes
    assert axes.get_legend() is None
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 9
    assert len({line.get_color() for line in axes.lines}) == 9
    assert axes.get_ylabel() == "held-out NLL"
