"""Trials on Ray: a cluster of two nodes on this machine, one of which is killed."""

import csv
import json
import socket
import subprocess
import threading
import time

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.sweeps.cluster import SETTINGS, Cluster, connected, ports
from mbrl_bilevel.scripts.sweeps.folder import SweepFolder, last_lines
from mbrl_bilevel.training.checkpoint import checkpoint_step

DATASET = "pendulum/random-v0"
STEPS, EVERY = 300, 10
SWEEP = f"""
command: train-model
dataset: {DATASET}
objective: [mse, {{bilevel: {{steps: 20}}}}]  # refused: cross-fitting needs two members
seed: [0, 1, 2]
members: 1
hidden: 8 8 8
steps: {STEPS}
evaluate_every: {EVERY}
checkpoint_seconds: 0
"""
TRAINED = [f"objective=mse,seed={seed}" for seed in range(3)]
REFUSED = [f"objective=bilevel,seed={seed}" for seed in range(3)]
SMALL = 80 * 2**20  # bytes of a node's store of objects


def in_time(start):
    """A node that is started; Ray gives it half a minute, which a busy machine may not have."""
    for _ in range(3):
        try:
            return start()
        except Exception as error:
            late = error
    raise late


@pytest.fixture
def nodes(monkeypatch, tmp_path):
    """A cluster of two nodes of one CPU, and a data set; everything ends with the test."""
    pytest.importorskip("ray", reason="ray is not installed: uv sync --extra sweep")
    from ray.cluster_utils import Cluster as Nodes

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    made = ("collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "2000")
    assert run([*made, "--dataset", DATASET]) == 0
    one = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": SMALL}
    cluster = in_time(lambda: Nodes(initialize_head=True, head_node_args=one | ports()))
    try:
        in_time(lambda: cluster.add_node(**one, **ports()))
        yield cluster
    finally:
        cluster.shutdown()


class LosesANode(threading.Thread):
    """Kills the second node as soon as its trial has written a few checkpoints."""

    def __init__(self, nodes, folder):
        super().__init__(daemon=True)
        self.nodes, self.folder = nodes, folder
        self.lost = self.step = None

    def run(self):
        (node,) = self.nodes.worker_nodes
        raylet = node.all_processes["raylet"][0].process.pid
        until = time.monotonic() + 300
        while self.lost is None and time.monotonic() < until:
            time.sleep(0.05)
            for name in TRAINED:
                step = checkpoint_step(self.folder.run(name))
                if step >= 3 * EVERY and self._is_on(name, raylet):
                    self.lost, self.step = name, step
                    break
        self.nodes.remove_node(node, allow_graceful=False)

    def _is_on(self, name, raylet):
        pid = last_lines(self.folder.starts(name))[-1]["pid"]
        found = subprocess.run(
            ["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True
        )
        return found.stdout.strip() == str(raylet)


@pytest.mark.slow
def test_a_killed_node_loses_no_trial_and_its_trial_goes_on_elsewhere(nodes, tmp_path, capsys):
    folder = SweepFolder(tmp_path / "out")
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP)
    killer = LosesANode(nodes, folder)
    killer.start()
    flags = ["sweep", str(file), "--out", str(folder.path), "--address", nodes.address]
    assert run(flags) == 1  # for the trials that are refused
    killer.join()
    captured = capsys.readouterr()
    for name in REFUSED:
        assert f"failed: {name}: cross-fitting needs 2 members or more" in captured.out
        assert len(last_lines(folder.starts(name))) == 1  # not tried again
    with open(folder.path / "results.csv", newline="") as table:
        rows = {row["trial"]: row for row in csv.DictReader(table)}
        assert table.seek(0) == 0
        assert len(list(csv.DictReader(table))) == len(rows)
    assert list(rows) == TRAINED
    assert killer.lost in TRAINED
    first, *_, last = last_lines(folder.starts(killer.lost))
    assert first["step"] == 0
    assert last["step"] >= killer.step
    assert int(rows[killer.lost]["starts"]) >= 2
    for name in TRAINED:
        lines = (folder.run(name) / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert steps == list(range(EVERY, int(rows[name]["steps_taken"]) + 1, EVERY))
    assert "Traceback" not in captured.err
    assert not [line for line in captured.err.splitlines() if "raylet" in line or "INFO" in line]


def test_an_address_where_nobody_answers_is_refused_at_once(monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(InputError, match=f"--address {address}: no Ray cluster answers there"):
            connected(address, 1, 0.0).__enter__()
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("address", ["head", "head:", ":6379", "ray://head:10001", "head:port"])
def test_addresses_that_are_none_are_refused(address):
    with pytest.raises(InputError, match="give HOST:PORT of the cluster's head"):
        connected(address, 1, 0.0).__enter__()


@pytest.mark.parametrize(
    ("cpus", "gpus", "slots"),
    [(1, 0.0, 10), (3, 0.0, 2), (8, 0.0, 1), (9, 0.0, 0), (1, 1.0, 2), (1, 0.3, 6), (1, 2.0, 1)],
)
def test_capacity_is_what_the_nodes_hold(monkeypatch, cpus, gpus, slots):
    """Nodes of 8 CPUs and 2 GPUs, and of 2 CPUs and none; a trial lies on one node."""
    nodes = [{"Resources": {"CPU": 8.0, "GPU": 2.0}}, {"Resources": {"CPU": 2.0}}]
    monkeypatch.setattr("mbrl_bilevel.scripts.sweeps.cluster._nodes", lambda: nodes)
    cluster = Cluster(cpus, gpus)
    assert cluster.capacity() == slots
    if slots:
        cluster.require_room()
    else:
        with pytest.raises(InputError, match=r"--cpus-per-trial 9: no node .*most are 8 CPUs"):
            cluster.require_room()
