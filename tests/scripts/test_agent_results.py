"""What a folder of eval-agent's results shows in TensorBoard."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2, metadata

from mbrl_bilevel.agents.agent_spec import PolicySpec
from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.scripts.agent_results import Results
from mbrl_bilevel.scripts.candidates import Candidate


def results(folder: Path, *names: str) -> Results:
    candidates = [Candidate(name, PolicySpec("random"), policy="random") for name in names]
    flags = {"env": "Hopper-v5", "seed": 0, "video": False}
    return Results.open(folder, candidates, flags, None)


def episode(*rewards: float) -> Episode:
    return Episode(np.array(rewards, float), True, 1.0, 0.1)


def test_one_run_holds_a_curve_of_every_agent_and_a_chart_of_all(tmp_path: Path) -> None:
    one = results(tmp_path, "model icem", "simulator")
    one.write(({0: episode(1, 2), 1: episode(3)}, {0: episode(5, 6, 7)}), 1.0, True)
    (events,) = tmp_path.rglob("events.out.tfevents.*")
    read = EventAccumulator(str(events)).Reload()
    assert set(read.Tags()["scalars"]) == {
        f"{curve}/{name}"
        for curve in ("mean_return", "mean_return_so_far")
        for name in ("model-icem", "simulator")
    }
    # Of episodes of rewards (1, 2) and (3): 2 after a step, 3 after two.
    so_far = [(e.step, e.value) for e in read.Scalars("mean_return_so_far/model-icem")]
    assert so_far == [(1, 2.0), (2, 3.0)]
    assert [e.value for e in read.Scalars("mean_return/model-icem")] == [3.0]
    (written,) = read.Tensors(metadata.CONFIG_SUMMARY_TAG)
    layout = layout_pb2.Layout.FromString(written.tensor_proto.string_val[0])
    (chart,) = layout.category[0].chart
    (curves,) = chart.multiline.tag
    assert all(re.fullmatch(curves, f"mean_return_so_far/{n}") for n in ("model-icem", "simulator"))
    assert read.Tags()["images"] == ["returns"]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_the_configuration_holds_flags_and_the_settings_of_each_agent(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    one = results(tmp_path, *names)
    played = tuple({0: episode(1.0)} for _ in names)
    found = one.write(played, 1.0, True).results
    assert json.loads((one.folder / "summary.json").read_text()) == found
    agents = found.get("agents", [found])
    assert [agent["name"] for agent in agents] == list(names)
