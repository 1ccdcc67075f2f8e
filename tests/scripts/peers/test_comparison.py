"""Turns, medians and ratios, by clocks that are told."""

from collections.abc import Iterator

import pytest
import torch

from mbrl_bilevel.products import Precision
from mbrl_bilevel.scripts.peers import comparison
from mbrl_bilevel.scripts.peers.comparison import COLUMNS, Comparison, Row, alternate, table


def told(name: str, seconds: list[float], order: list[str]):
    left = iter(seconds)

    def call() -> float:
        order.append(name)
        return next(left)

    return call


def test_candidates_take_turns_and_the_warm_up_is_left_out():
    order: list[str] = []
    candidates = {
        "a": told("a", [9.0, 1.0, 2.0], order),
        "b": told("b", [9.0, 3.0, 4.0], order),
    }
    assert alternate(candidates, rounds=2) == {"a": [1.0, 2.0], "b": [3.0, 4.0]}
    assert order == ["a", "b"] * 3


def work(ours, limit, *, precision: Precision = "float32") -> Comparison:
    return Comparison(
        name="fit",
        peer="a_peer",
        packages="mbrl",
        spec={},
        ours=ours,
        limit=limit,
        precision=precision,
        per="step",
        count=10,
    )


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time that calls move on by hand."""
    now = [0.0]
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: now[0])
    return now


def spend(clock: list[float], seconds: list[float]):
    left: Iterator[float] = iter(seconds)

    def call() -> None:
        clock[0] += next(left)

    return call


def test_the_ratio_is_the_median_of_the_rounds_own_ratios(clock):
    """The machine is ten times slower in the last round: ratios do not see it."""
    ours, limit = spend(clock, [7.0, 1.0, 2.0, 10.0]), spend(clock, [7.0, 0.5, 0.5, 5.0])
    peer = told("peer", [7.0, 3.0, 5.0, 20.0], [])
    row = comparison.compare(work(ours, limit), peer, "0.2.0", rounds=3)
    assert (row.ratio, row.lowest_ratio, row.highest_ratio) == (2.5, 2.0, 3.0)
    # milliseconds of a step, of which a round does ten
    assert (row.ours_ms, row.peer_ms, row.limit_ms) == pytest.approx((200.0, 500.0, 50.0))
    switch = hasattr(torch.backends.mkldnn, "matmul")
    onednn = switch and comparison.precisions_here() == ("float32",)
    assert (row.peer, row.products) == ("mbrl 0.2.0", "oneDNN" if onednn else "torch's")


@pytest.mark.parametrize("precision", comparison.precisions_here())
def test_ours_multiplies_as_the_comparison_says_and_torch_is_left_as_it_was(precision):
    """bfloat16 has 8 bits, float32 24."""
    if not hasattr(torch.backends.mkldnn, "matmul"):
        pytest.skip("a torch without the switch")
    a = torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
    exact, errors = a.double() @ a.double(), []

    def ours() -> None:
        errors.append(float((a @ a - exact).abs().max()))

    ours()
    rounded = comparison.compare(work(ours, ours, precision=precision), lambda: 1.0, "1", rounds=1)
    ours()
    assert (errors[1] > 10 * errors[0]) == (precision == "bf16") == (rounded.products == "bf16")
    assert errors[-1] == errors[0]


def test_the_table_shows_every_row_and_the_machine():
    row = Row("fit", "mbrl 0.2.0", "oneDNN", 1.23456, 2.5, 2.02, 1.9, 2.1, 0.5, "step")
    head, line, note, machine = table([row], "a CPU; threads 1").splitlines()
    assert head.split()[:5] == ["benchmark", "peer", "ours", "ms", "peer"]
    assert "1.235" in line
    assert "2.02 (1.90 to 2.10)" in line
    assert "peer / ours" in note
    assert machine == "a CPU; threads 1"
    assert list(row.cells()) == list(COLUMNS)
    assert row.cells()["ours_ms"] == "1.235"
