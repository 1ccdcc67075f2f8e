"""sanity as a user runs it."""

import json
import math

import pytest
import torch

from mbrl_bilevel.sanity import suite
from mbrl_bilevel.sanity.check import check
from mbrl_bilevel.sanity.gaussian import draw
from mbrl_bilevel.sanity.gaussian_curves import SETTLED_NLL, curves
from mbrl_bilevel.sanity.over_seeds import Estimate
from mbrl_bilevel.scripts import sanity
from mbrl_bilevel.scripts.main import run


@pytest.fixture
def toy_problems(monkeypatch):
    """Three small problems in place of the real ones, the last of them with a wrong value."""
    table = {"toy": {"nll": {"gap": Estimate(1.0, 0.5), "nll": Estimate(math.inf, math.nan)}}}
    parts = {
        "gaussian": suite.Part([check("u", 0.32, 0.32, 0.01)], {}),
        "classification": suite.Part([check("b", 1.13, 1.13, 0.01)], table),
        "mdp": suite.Part([check("gap", 2.0, 0.0, 0.5)], {}),
    }
    monkeypatch.setattr(
        sanity, "PARTS", {name: lambda seed, p=part: p for name, part in parts.items()}
    )


def last_json(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_failed_check_is_exit_code_1_and_named(toy_problems, capsys):
    assert run(["sanity", "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [c["name"] for c in found["checks"]] == ["u", "b", "gap"]
    assert found["checks"][2] == {
        "name": "gap",
        "value": 2.0,
        "expected": 0.0,
        "tolerance": 0.5,
        "passed": False,
    }
    assert found["passed"] is False
    assert "FAIL  gap" in captured.err
    assert "1 checks FAILED" in captured.err


def test_toy_problems_are_chosen_by_name_and_pass_with_exit_code_0(toy_problems, capsys):
    assert run(["sanity", "classification", "gaussian"]) == 0
    captured = capsys.readouterr()
    assert "all passed" in captured.out
    assert "1.000 ± 0.500" in captured.out
    assert "gap" not in [line.split()[1] for line in captured.out.splitlines() if "pass " in line]
    assert "sanity gaussian: 1 checks, 0 failed" in captured.err


def test_an_infinite_value_is_null_in_json(toy_problems, capsys):
    assert run(["sanity", "classification", "--json"]) == 0
    found = last_json(capsys)
    assert found["tables"]["toy"]["nll"]["nll"] == {"mean": None, "error": None}
    assert found["tables"]["toy"]["nll"]["gap"] == {"mean": 1.0, "error": 0.5}


def test_without_scikit_learn_classification_is_skipped_or_refused(
    toy_problems, monkeypatch, capsys
):
    monkeypatch.setattr(sanity, "find_spec", lambda name: None)
    assert run(["sanity", "classification"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert 'pip install "mbrl-bilevel[sanity]"' in error
    assert run(["sanity", "--json"]) == 1
    found = last_json(capsys)
    assert [c["name"] for c in found["checks"]] == ["u", "gap"]
    assert "scikit-learn" in found["skipped"]["classification"]


def test_out_holds_the_checks_and_nothing_is_overwritten(toy_problems, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert run(["sanity", "classification", "--out", str(out), "--json"]) == 0
    assert json.loads((out / "checks.json").read_text()) == last_json(capsys)
    before = (out / "checks.json").stat().st_mtime_ns
    assert run(["sanity", "classification", "--out", str(out)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (out / "checks.json").stat().st_mtime_ns == before
    (tmp_path / "file").write_text("")
    assert run(["sanity", "classification", "--out", str(tmp_path / "file")]) == 2


def test_the_figure_has_every_curve_and_the_truth():
    generator = torch.Generator().manual_seed(0)
    found = curves(draw(30, generator), draw(30, generator), updates=20)
    figure = sanity.figures.training_curves(found)
    assert found.keys() == SETTLED_NLL.keys()
    for axes, values in zip(figure.axes, ("mean", "covariance", "nll"), strict=True):
        lines = {line.get_label(): line for line in axes.lines}
        assert lines.keys() == {*found, "truth"}
        shown = lines["nll"].get_ydata()[-1]
        end = getattr(found["nll"], values)[-1]
        expected = end.diagonal().mean() if values == "covariance" else end.mean()
        assert shown == pytest.approx(expected.item())


@pytest.mark.slow
def test_every_world_passes(capsys):
    assert run(["sanity", "--json"]) == 0
    found = last_json(capsys)
    assert len(found["checks"]) > 50
    assert found["skipped"] == {}
