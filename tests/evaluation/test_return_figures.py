import matplotlib.pyplot as plt
import numpy as np
import pytest

from mbrl_bilevel.evaluation.return_figures import agents_compared, mean_return_so_far


def test_the_mean_return_so_far_ends_at_the_mean_return() -> None:
    """Episodes of 1, 3 and 2 steps, by hand; ended ones keep what they have."""
    episodes = [np.array([3.0]), np.array([1.0, 1.0, 1.0]), np.array([2.0, 4.0])]
    assert mean_return_so_far(episodes) == pytest.approx([6 / 3, 11 / 3, 12 / 3])
    assert mean_return_so_far(episodes, 5)[-1] == pytest.approx(12 / 3)


@pytest.mark.parametrize("agents", [1, 3, 7])
def test_the_figure_shows_every_episode_and_the_mean_of_every_agent(agents: int) -> None:
    rng = np.random.default_rng(0)
    played = {f"agent {i}": [rng.normal(i, 1, 5 + k) for k in range(4)] for i in range(agents)}
    figure = agents_compared(played, "a task")
    returns, growth = figure.axes
    assert [tick.get_text() for tick in returns.get_yticklabels()] == list(played)
    for dots, episodes in zip(returns.collections, played.values(), strict=True):
        shown = np.asarray(dots.get_offsets())[:, 0]
        assert shown == pytest.approx([rewards.sum() for rewards in episodes])
    ends = {round(float(np.asarray(line.get_ydata())[-1]), 6) for line in growth.lines}
    for episodes in played.values():
        total = np.mean([rewards.sum() for rewards in episodes])
        assert round(float(total), 6) in ends
    low, high = returns.get_ylim()
    assert low > high  # the first agent on top
    plt.close(figure)
