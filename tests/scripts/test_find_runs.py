"""Runs are found in any folder above them, once."""

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.find_runs import find_runs
from tests.scripts.run_folders import agent_run, evaluation, model_run


def test_folders_are_searched_and_models_of_agents_belong_to_these(tmp_path):
    agent = agent_run(tmp_path / "out/Hopper-v5/mopo-0", 0, {1: 1.0})
    model_run(agent / "model", 0, 0.1)
    model = model_run(tmp_path / "out/deep/er/run", 0, 0.1)
    (tmp_path / "out/datasets").mkdir()
    found = find_runs("RUN", [tmp_path / "out"])
    assert [run.folder for run in found] == [agent, model]
    assert [run.folder for run in find_runs("RUN", [model, agent])] == [model, agent]


def test_results_of_eval_agent_are_found_below_runs_and_by_themselves(tmp_path):
    model = model_run(tmp_path / "m", 0, 0.1)
    below = evaluation(model / "eval-001", model, [1.0])
    agent = agent_run(tmp_path / "a", 0, {1: 1.0})
    evaluation(model_run(agent / "model", 0, 0.1) / "eval-001", agent / "model", [1.0])
    apart = evaluation(tmp_path / "m,eval-agent/eval-001", model, [3.0])
    assert [run.folder for run in find_runs("RUN", [tmp_path])] == [agent, model, below, apart]
    assert [run.folder for run in find_runs("RUN", [apart])] == [apart]


def test_runs_without_results_in_a_searched_folder_are_kept(tmp_path):
    for name, returns in (("a", {}), ("b", {1: 1.0})):
        agent_run(tmp_path / name, 0, returns, finished=False)
    assert [r.state for r in find_runs("RUN", [tmp_path])] == ["without results", "interrupted"]


@pytest.mark.situation("refused")
@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["absent"], r"RUN \S*absent: no such folder; name run folders"),
        (["empty"], r"RUN \S*empty holds no run of train-model or train-agent, and no results of"),
        (["begun"], r"RUN \S*begun has no results yet: wait"),
        (["damaged"], r"RUN \S*damaged cannot be read \(config.yaml is missing\): leave it out"),
        (["run", "run"], r"RUN names \S*run twice"),
        (["run", "."], r"RUN names \S*run twice"),
    ],
)
def test_what_holds_no_results_is_refused(tmp_path, names, sentence):
    (tmp_path / "empty").mkdir()
    agent_run(tmp_path / "run", 0, {1: 1.0})
    agent_run(tmp_path / "begun", 0, {}, finished=False)
    (agent_run(tmp_path / "damaged", 0, {1: 1.0}) / "config.yaml").unlink()
    with pytest.raises(InputError, match=sentence):
        find_runs("RUN", [tmp_path / name for name in names])
