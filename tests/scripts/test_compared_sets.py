"""Two sets of runs against each other."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.compared_sets import comparison_section, require_comparable
from mbrl_bilevel.scripts.find_runs import find_runs
from mbrl_bilevel.scripts.run_groups import grouped
from mbrl_bilevel.scripts.run_reading import read_run
from tests.scripts.run_folders import FINGERPRINT, HOPPER, agent_run, evaluation, model_run


def both(ours, theirs):
    return grouped([read_run(f) for f in ours], [read_run(f) for f in theirs])


def sets(ours, theirs):
    return grouped(find_runs("RUN", [ours]), find_runs("--against", [theirs]))


def rows(groups):
    require_comparable(groups)
    (table,) = comparison_section(groups, 0).tables
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_larger_returns_are_better(tmp_path):
    ours = [agent_run(tmp_path / f"a{i}", i, {9: v}) for i, v in enumerate((1.0, 5.0, 6.0))]
    theirs = [agent_run(tmp_path / f"b{i}", i, {9: v}) for i, v in enumerate((2.0, 5.0))]
    (row,) = rows(both(ours, theirs))  # one evaluation has no mean over the training
    assert (row["RUN"], row["--against"]) == ("sac", "sac (against)")
    assert (row["metric"], row["seeds"], row["better is"]) == ("final return", "3, 2", "larger")
    # of 6 pairs ours is better in (5, 2), (6, 2), (6, 5), and equal in (5, 5)
    assert row["probability of improvement"].value == pytest.approx(3.5 / 6)
    assert row["difference of IQM"].value == pytest.approx(4.0 - 3.5)


def test_smaller_errors_are_better_and_unfinished_runs_do_not_count(tmp_path):
    ours = [model_run(tmp_path / f"a{i}", i, v) for i, v in enumerate((0.1, 0.4))]
    theirs = [model_run(tmp_path / f"b{i}", i, v) for i, v in enumerate((0.2, 0.3))]
    theirs.append(model_run(tmp_path / "b2", 2, 1e9, finished=False))
    found = {row["metric"]: row for row in rows(both(ours, theirs))}
    assert found["test: RMSE"]["probability of improvement"].value == 0.5
    ours = [model_run(tmp_path / "c", 0, 0.1, objective="mse")]
    found = {row["metric"]: row for row in rows(both(ours, theirs))}
    for metric in ("test: RMSE", "test: NLL", "test: R²"):
        assert found[metric]["probability of improvement"] == (1.0, None)
    assert found["test: calibration error"]["probability of improvement"].value == 0.5
    assert found["test: RMSE"]["difference of IQM"].value == pytest.approx(-0.15)


def test_evaluations_are_compared_beside_their_models_and_by_themselves(tmp_path):
    parts = {}
    for name, value in (("nll", 1.0), ("mse", 2.0)):
        model = model_run(tmp_path / name, 0, 0.1, objective=name)
        parts[name] = evaluation(model / "eval-001", model, [value, value])
    together = rows(sets(tmp_path / "nll", tmp_path / "mse"))
    apart = rows(sets(parts["nll"], parts["mse"]))
    of_returns = [row for row in together if row["metric"] == "return"]
    assert (of_returns, len(together)) == (apart, len(apart) + 4)
    (row,) = apart
    assert (row["RUN"], row["--against"], row["better is"]) == ("nll", "mse (against)", "larger")
    assert row["probability of improvement"].value == 0.0
    with pytest.raises(InputError, match="the runs to compare are agents and evaluations: name"):
        require_comparable(sets(agent_run(tmp_path / "a", 0, {1: 1.0}), parts["mse"]))


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        ("model", "the runs to compare are agents and models: name"),
        ("ant", "of different tasks, Ant-v5, Hopper-v5: name runs of one task, or leave --against"),
        ("cut", "no run of --against is finished"),
    ],
)
def test_agents_are_compared_with_agents_on_one_task(tmp_path, theirs, sentence):
    model_run(tmp_path / "model", 0, 0.1)
    agent_run(tmp_path / "ant", 0, {1: 1.0}, environment=HOPPER | {"id": "Ant-v5"})
    agent_run(tmp_path / "cut", 0, {1: 1.0}, finished=False)
    ours = agent_run(tmp_path / "run", 0, {1: 1.0})
    with pytest.raises(InputError, match=sentence):
        require_comparable(both([ours], [tmp_path / theirs]))


@pytest.mark.situation("refused")
def test_models_of_different_data_have_no_common_unit(tmp_path):
    other = FINGERPRINT | {"observations": "ffff"}
    folders = (
        [model_run(tmp_path / "a", 0, 0.1)],
        [model_run(tmp_path / "b", 0, 0.1, fingerprint=other)],
    )
    with pytest.raises(InputError, match="learned from different data sets, hopper/medium-v0"):
        require_comparable(both(*folders))
