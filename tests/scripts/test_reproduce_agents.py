"""`reproduce agents`: runs that are kept, curves that are theirs, published curves behind them."""

import csv
import json

import pytest
import yaml

from mbrl_bilevel.agents.presets import PRESETS
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.objectives.settings import OBJECTIVES
from mbrl_bilevel.scripts import train_agent
from mbrl_bilevel.scripts.flags.reproduce import Config
from mbrl_bilevel.scripts.main import run
from mbrl_bilevel.scripts.reproduce_agents import Trial, _rows, _run, _trials

ENV = "InvertedPendulum-v5"
SMALL = {"steps": 40, "start_steps": 20, "policy_hidden": 8, "policy_batch_size": 4}
SAC = ("reproduce", "agents", "--agents", "sac", "--envs", ENV)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, ("sac", ENV), SMALL)


def published(folder, rows):
    folder.mkdir()
    lines = ["method,seed,real_steps,return", *(",".join(map(str, row)) for row in rows)]
    (folder / "InvertedPendulum.csv").write_text("\n".join(lines))
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_curves_are_the_evaluations_of_every_seed(tmp_path, capsys):
    curves = published(tmp_path / "published", [("peer", 0, 0, 10.0), ("peer", 0, 80, 90.0)])
    flags = (*SAC, "--seeds", "2", "--seed", "3", "--steps", "30", "--out", str(tmp_path / "out"))
    assert run([*flags, "--published", str(curves), "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    rows = rows_of(tmp_path / "out" / "curves.csv")
    assert len(rows) == len(found["curves"]) == 2 * 30
    for seed in (3, 4):
        folder = tmp_path / "out" / ENV / f"sac-{seed}"
        lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
        evaluated = {e["step"]: e["evaluation/return"] for e in lines if "evaluation/return" in e}
        drawn = {int(r["step"]): float(r["return"]) for r in rows if r["seed"] == str(seed)}
        assert drawn == pytest.approx(evaluated, abs=0.051)
    assert (tmp_path / "out" / f"{ENV}.png").stat().st_size > 10_000
    # 10 + 30 / 80 (90 - 10): the published curve at step 30
    (peer,) = (line for line in captured.err.splitlines() if line.startswith("peer, published"))
    assert peer.split()[-1] == "40"


def test_finished_runs_are_kept_and_interrupted_ones_go_on(tmp_path, monkeypatch):
    begun = []

    def train(config):
        begun.append((config.run.seed, config.run.resume))
        config.run.out.mkdir(parents=True, exist_ok=True)
        (config.run.out / "metrics.jsonl").write_text('{"step": 40, "evaluation/return": 1.0}\n')
        (config.run.out / "config.yaml").write_text("{}")
        if config.run.resume or config.run.seed == 0:  # the first call of seed 1 is interrupted
            (config.run.out / "summary.json").touch()

    monkeypatch.setattr(train_agent, "run", train)
    for _ in range(3):
        assert run([*SAC, "--out", str(tmp_path), "--seeds", "2"]) == 0
    assert begun == [(0, False), (1, False), (1, True)]


def test_objectives_are_compared_with_noise_that_depends_on_the_input():
    config = Config(name="agents", envs=("Hopper-v5",), objectives=("nll", "two_means"), seeds=1)
    first, second = _trials(config)
    assert [first.name, second.name] == ["dhmbpo-nll", "dhmbpo-two_means"]
    assert [OBJECTIVES.name(t.settings.objective) for t in (first, second)] == ["nll", "two_means"]
    assert {t.settings.model.noise for t in (first, second)} == {"input"}
    (own,) = _trials(Config(name="agents", envs=("Hopper-v5",), seeds=1))
    assert own.settings.model.noise == "constant"


def test_seconds_add_up_over_the_lines_of_a_run(tmp_path):
    """100 steps at 50 a second, then 100 at 25: 2 and 6 seconds."""
    (trial,) = _trials(Config(name="agents", agents=("sac",), envs=(ENV,), seeds=1))
    assert isinstance(trial, Trial)
    folder = trial.folder(tmp_path)
    folder.mkdir(parents=True)
    lines = [
        {"step": 100, "time/steps_per_second": 50.0},
        {"step": 100, "evaluation/return": 1.0},
        {"step": 200, "time/steps_per_second": 25.0},
        {"step": 200, "evaluation/return": 2.0},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert [(row["step"], row["seconds"]) for row in _rows([trial], tmp_path)] == [
        (100, 2),
        (200, 6),
    ]


def test_runs_of_other_settings_are_not_taken_for_those_asked_for(tmp_path, capsys):
    """Neither a finished run nor a begun one: refused before any other is trained."""
    first = Config(name="agents", agents=("sac",), envs=(ENV,), seeds=1, steps=30)
    (trial,) = _trials(first)
    folder = trial.folder(tmp_path)
    folder.mkdir(parents=True)
    values = train_agent.resolved(_run(first, trial, tmp_path), EnvSpec(ENV))
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    (folder / "metrics.jsonl").write_text('{"step": 30, "evaluation/return": 1.0}\n')
    for name in ("checkpoint.safetensors", "summary.json"):
        (folder / name).touch()
        before = sorted(tmp_path.rglob("*"))
        flags = (*SAC, "--seed", "0", "--seeds", "1", "--out", str(tmp_path))
        assert run([*flags, "--steps", "35"]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert f"the run in {folder} has other settings, steps 30 (now 35)" in error
        assert sorted(tmp_path.rglob("*")) == before
    assert run([*flags, "--steps", "30"]) == 0


def test_trainings_without_an_evaluation_are_named(tmp_path, monkeypatch, capsys):
    """PETS within its first episode, say."""

    def train(config):
        config.run.out.mkdir(parents=True)
        (config.run.out / "metrics.jsonl").write_text('{"step": 40, "model/held_out_nll": 1.0}\n')

    monkeypatch.setattr(train_agent, "run", train)
    assert run([*SAC, "--out", str(tmp_path), "--seeds", "1"]) == 0
    assert rows_of(tmp_path / "curves.csv") == []
    captured = capsys.readouterr()
    named = f"{ENV}, sac, seed 0: no evaluation, or no whole episode"
    assert named in captured.err.splitlines()
    assert f"{ENV}: no evaluation" in captured.out.splitlines()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "--out"),
        (("--agents", "none", "--out", "OUT"), "no agent 'none'"),
        (("--agents", "dhmbpo", "--objectives", "none", "--out", "OUT"), "--objectives none"),
        (("--agents", "sac", "--objectives", "nll", "--out", "OUT"), "no setting of sac"),
        (("--agents", "mopo", "--envs", "Pusher-v5", "--out", "OUT"), "Pusher-v5"),
        (("--published", "nowhere", "--out", "OUT"), "--published nowhere"),
        (("--objectives", "--out", "OUT"), "--objectives: name at least one"),
        (("--steps", "10", "--out", "OUT"), "--start-steps 5000 of --steps 10"),
    ],
)
def test_bad_input_is_refused_before_any_run(tmp_path, capsys, flags, sentence):
    out = tmp_path / "out"
    assert run(["reproduce", "agents", *(str(out) if f == "OUT" else f for f in flags)]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_published_files_of_other_columns_are_refused(tmp_path, capsys):
    (tmp_path / "InvertedPendulum.csv").write_text("step,value\n1,2\n")
    assert run([*SAC, "--published", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "it needs the columns method, real_steps, return, seed" in capsys.readouterr().err
