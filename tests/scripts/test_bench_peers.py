"""`bench --peers` as a command; the libraries themselves where their environment is made."""

import csv
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from mbrl_bilevel.scripts import bench_peers
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.peers import environment, load
from mbrl_bilevel.scripts.peers.comparison import COLUMNS
from mbrl_bilevel.scripts.peers.protocol import Peer

# Looked up while the user's own cache folder still is the cache folder.
FOLDER = environment.environment_folder()
IS_MADE = environment.is_made()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("checkpoint --peers", "checkpoint --peers: it has no peer"),
        ("fit --peers --device cuda", "peers are timed on the CPU"),
        ("rollout", "add --peers"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(flags, words, capsys, monkeypatch):
    monkeypatch.setattr(bench_peers, "peers_python", lambda: pytest.fail("made an environment"))
    assert run(["bench", *flags.split()]) == 2
    assert words in capsys.readouterr().err


def test_loads_are_timed_in_turn_and_written(tmp_path, capsys, monkeypatch):
    """Minari is on both sides, so this environment's own Python can be the peer's."""
    monkeypatch.setattr(bench_peers, "peers_python", lambda: Path(sys.executable))
    monkeypatch.setattr(load, "SHAPES", {"short": (20, 5)})
    out = tmp_path / "out"
    arguments = ["load", "--peers", "--rounds", "2", "--out", str(out), "--json"]
    assert run(["bench", *arguments]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    first, again = found["peers"]
    assert (first["benchmark"], again["benchmark"]) == ("load first", "load again")
    assert first["per"] == "load of 20 episodes of 5 steps"
    for row in (first, again):
        assert row["lowest_ratio"] <= row["ratio"] <= row["highest_ratio"]
        # medians of two rounds are means, and a ratio of means lies between the ratios
        ratio = row["peer_ms"] / row["ours_ms"]
        assert row["lowest_ratio"] * 0.999 <= ratio <= row["highest_ratio"] * 1.001
        assert row["limit_ms"] < row["ours_ms"]
    machine = found["machine"]
    assert machine["threads"] == 1
    assert machine["versions"] == {"torch": version("torch"), "minari": version("minari")}
    with (out / "throughput-peers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["benchmark"] for row in rows] == ["load first", "load again"]
    assert list(rows[0]) == list(COLUMNS)
    assert float(rows[0]["ratio"]) == pytest.approx(first["ratio"], rel=1e-3)
    assert "threads 1" in captured.err


NETWORK = {"members": 5, "layers": 2, "units": 8}
SEARCH = {"horizon": 3, "samples": 25, "iterations": 2, "elites": 5, "particles": 5}
SPECS = [
    ("mbrl_fit", {"network": NETWORK, "rows": 40, "batch": 10}),
    ("mbrl_rollout", {"network": NETWORK, "rows": 20, "steps": 3}),
    ("mbrl_plan", {"network": NETWORK, "planner": "cem", **SEARCH}),
    ("mbrl_plan", {"network": NETWORK, "planner": "icem", **SEARCH}),
    ("mppi_plan", {"network": NETWORK, **SEARCH}),
    ("sb3_sac", {}),
]


@pytest.mark.slow
@pytest.mark.skipif(not IS_MADE, reason="`bench --peers` has not made the peers' environment")
@pytest.mark.parametrize(("module", "spec"), SPECS)
def test_each_library_runs_in_its_environment_beside_the_same_torch(module, spec):
    command = [str(FOLDER / "bin/python"), "-m", f"mbrl_bilevel.scripts.peers.{module}"]
    with Peer(command, {**spec, "seed": 0, "threads": 1}) as peer:
        assert peer.versions["torch"] == version("torch")
        assert 0 < peer.run() < 60
        assert 0 < peer.run() < 60
