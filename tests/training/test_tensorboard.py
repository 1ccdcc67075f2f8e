"""TensorBoard: curves, charts and hyper-parameters of a training stand in one run."""

import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as Charts
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter

from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.tensorboard import (
    CHARTS,
    MODEL,
    PLAYED,
    agent_layout,
    write_charts,
)
from tests.training.test_fit_network import linear_data, network, seeded

FULL = agent_layout(model=True, critics=True)
CONFIG = {
    "steps": 20, "schedule": "cosine", "elites": None, "fingerprint": {"steps": 3},
    "objective": {"beta": 0.5},
}  # fmt: skip


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    with RunFolder(folder, CONFIG) as run:
        fit_network(
            network(), NLL(), linear_data(), linear_data(), generator=seeded(), run=run,
            settings=FitSettings(steps=20, evaluate_every=10),
        )  # fmt: skip
        run.summarize({"steps": 20})
    assert {path.parent for path in folder.rglob("events.out.tfevents.*")} == {folder}
    return EventAccumulator(str(folder)).Reload()


def hparams(events, name):
    content = events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content
    return HParamsPluginData.FromString(content)


def charts_of(events):
    proto = events.Tensors("custom_scalars__config__")[0].tensor_proto
    (category,) = Charts.FromString(proto.string_val[0]).category
    assert category.title == "Overview"
    return {chart.title: list(chart.multiline.tag) for chart in category.chart}


def test_the_first_charts_show_curves_that_are_there(events):
    charts = charts_of(events)
    assert charts == {title: CHARTS[title] for title in MODEL.charts}
    tags = events.Tags()["scalars"]
    empty = {title for title, patterns in charts.items() if not shown(patterns, tags)}
    assert empty == {"Model error: RMSE by steps ahead"}  # until the model is evaluated


def shown(patterns, tags):
    return [tag for tag in tags if any(re.fullmatch(pattern, tag) for pattern in patterns)]


def test_hyper_parameters_stand_beside_the_last_metrics(events):
    start = hparams(events, "session_start_info").session_start_info.hparams
    assert start["steps"].number_value == 20
    assert start["schedule"].string_value == "cosine"
    assert start["elites"].string_value == "None"
    assert start["objective.beta"].number_value == 0.5
    assert not any("fingerprint" in name for name in start)
    found = hparams(events, "experiment").experiment.metric_infos
    assert [metric.name.tag for metric in found] == list(MODEL.compared)
    assert "held_out/nll" in events.Tags()["scalars"]


def test_a_run_that_has_succeeded_says_so(events):
    assert hparams(events, "session_end_info").session_end_info.status == 1  # STATUS_SUCCESS


@pytest.mark.parametrize(
    ("layout", "titles"),
    [
        (agent_layout(model=False, critics=False), ["Return"]),
        (agent_layout(model=False, critics=True), ["Return", "Value and discounted return"]),
        (FULL, ["Return", "Model error: RMSE of new transitions", "Held-out NLL", "Held-out MSE"]),
        (PLAYED, ["Return so far by step of the episode"]),
    ],
)
def test_an_agents_first_charts_are_of_returns_and_of_its_model(tmp_path, layout, titles):
    with SummaryWriter(str(tmp_path)) as writer:
        write_charts(writer, layout)
    charts = charts_of(EventAccumulator(str(tmp_path)).Reload())
    assert list(charts)[: len(titles)] == titles
    assert all(charts[title] == CHARTS[title] for title in charts)


def test_every_compared_metric_of_an_agent_is_in_a_chart():
    charts = [pattern for title in FULL.charts for pattern in CHARTS[title]]
    assert shown(charts, FULL.compared) == list(FULL.compared)
