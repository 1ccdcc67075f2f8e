"""TensorBoard: curves, charts and hyper-parameters of a training stand in one run."""

import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as Charts
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from mbrl_bilevel.objectives.likelihood import NLL
from mbrl_bilevel.training.fit_network import fit_network
from mbrl_bilevel.training.run_folder import RunFolder
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.tensorboard import AGENT, MODEL
from tests.training.test_fit_network import linear_data, network, seeded

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


def test_the_first_charts_show_curves_that_are_there(events):
    proto = events.Tensors("custom_scalars__config__")[0].tensor_proto
    (category,) = Charts.FromString(proto.string_val[0]).category
    assert [chart.title for chart in category.chart] == list(MODEL.charts)
    tags = events.Tags()["scalars"]
    for chart in category.chart:
        for pattern in chart.multiline.tag:
            assert any(re.fullmatch(pattern, tag) for tag in tags), pattern


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


def test_an_agents_first_charts_are_of_returns_and_of_its_model():
    assert next(iter(AGENT.charts)) == "Return"
    assert "evaluation/return" in AGENT.charts["Return"]
    assert {"model/fresh_rmse"} <= {tag for tags in AGENT.charts.values() for tag in tags}
