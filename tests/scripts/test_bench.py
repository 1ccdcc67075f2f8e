"""`bench` as a command, on sizes that take a moment; times themselves are not tested."""

import csv
import json
from dataclasses import replace

import pytest
import torch

from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.settings import BilevelSettings
from mbrl_bilevel.scripts import bench_bilevel, bench_dhmbpo, bench_growth, bench_simulate
from mbrl_bilevel.scripts.main import run


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    for module, sizes in (
        (bench_simulate, {"SEQUENCES": 2, "HORIZON": 3}),
        (bench_bilevel, {"EPISODES": 20, "LENGTH": 20, "STEPS": 1, "WIDTHS": (8,)}),
        (bench_bilevel, {"OUTER_STEPS": 1}),
        (bench_dhmbpo, {"START": 200, "STEPS": 1, "FIT_STEPS": 1}),
        (bench_growth, {"FITS": {"members": (1, 5), "units": (8, 16)}, "STEPS": 1}),
        (bench_growth, {"PLANS": {"horizon": (2,), "samples": (20,)}}),
    ):
        for name, value in sizes.items():
            monkeypatch.setattr(module, name, value)


def test_every_number_is_a_row(tmp_path, capsys):
    names = ["simulate", "bilevel", "dhmbpo", "growth"]
    assert run(["bench", *names, "--rounds", "1", "--out", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    with (tmp_path / "throughput-bench.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["benchmark"] for row in rows} == set(names)
    for name in names:
        values = {row["metric"]: float(row["value"]) for row in rows if row["benchmark"] == name}
        assert values["ours"] == pytest.approx(found[name]["ours"], rel=1e-3)
        for metric, value in found[name]["more"].items():
            assert values[metric] == pytest.approx(value, rel=1e-3)
    assert found["simulate"]["share_of_limit"] > 0
    assert {"fit, 5 members, ms", "plan, horizon 2, ms"} <= found["growth"]["more"].keys()


@pytest.mark.parametrize("flags", ["simulate", "fit --peers"])
def test_nothing_is_overwritten_and_a_file_is_no_folder(flags, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    kept = tmp_path / "full" / "throughput-bench.csv"
    kept.write_text("earlier")
    for out, words in ((kept, "is a file; choose a folder"), (kept.parent, "is not empty")):
        assert run(["bench", *flags.split(), "--out", str(out)]) == 2
        (error,) = capsys.readouterr().err.splitlines()
        assert words in error
    assert kept.read_text() == "earlier"


@pytest.mark.parametrize("every", [1, 1_000_000])
def test_outer_steps_are_taken_from_the_first_step_on(every):
    """Real trainings warm up, and a benchmark of the warm-up would time inner steps alone."""
    generator = torch.Generator().manual_seed(0)
    parts = [bench_bilevel._transitions(episodes, generator) for episodes in (20, 20)]
    spec = replace(BilevelSettings(), outer_every=every)
    settings = ModelSettings(members=2, hidden=(8,))
    training = bench_bilevel._training(spec, settings, parts, generator)
    training.train_step()
    assert ("outer/hypergradient_norm" in training.metrics()) == (every == 1)
