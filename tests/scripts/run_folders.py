"""Run folders as train-agent and train-model leave them, with results that a test chooses."""

import json

import yaml

HOPPER = {"id": "Hopper-v5", "kwargs": {}, "wrappers": [], "max_episode_steps": None}
FINGERPRINT = {"observations": "aaaabbbbcccc", "actions": "dddd"}


def agent_run(folder, seed, returns, *, finished=True, agent="sac", environment=HOPPER, **config):
    """`returns` are those of evaluations, by step; a step takes a tenth of a second."""
    lines = []
    for step, value in returns.items():
        lines.append({"step": step, "time/steps_per_second": 10.0})
        lines.append({"step": step, "evaluation/return": value})
    values = {"agent": agent, "seed": seed, "env": environment["id"], "environment": environment}
    summary = {"steps": max(returns, default=0), "mean_return": 0.0, "seconds": 0.1}
    return write(folder, values | config, lines, summary if finished else None)


def model_run(
    folder, seed, rmse, *, finished=True, objective="nll", summary=None, evaluation=None, **config
):
    """A model of one-step error `rmse` on its test part, whose NLL is a tenth of that."""
    values = {
        "objective": objective,
        "seed": seed,
        "environment": HOPPER | {"max_episode_steps": 1000},
        "dataset": "hopper/medium-v0",
        "fingerprint": FINGERPRINT,
        "hidden": [8],
    }
    test = {"rmse": rmse, "nll": rmse / 10, "r2": 1 - rmse, "ece": 0.1, "coverage": [0.5] * 19}
    found = {"test": test, "parameters": 1234, "steps": 30, "seconds": 2.5} | (summary or {})
    lines = [{"step": step, "held_out/nll": rmse + 1 / step} for step in (10, 20, 30)]
    made = write(folder, values | config, lines, found if finished else None)
    if evaluation is not None:
        (made / "evaluation.json").write_text(json.dumps(evaluation))
    return made


def evaluation(folder, model, returns, *, complete=True, seed=1000, environment=HOPPER, **found):
    """What eval-agent wrote of a planner in one model, or of the policy of a run."""
    folder.mkdir(parents=True)
    planner = {"planner": "icem", "settings": {"samples": 64}}
    agent = {"agent": "mpc", "policy": None, "model": None if model is None else str(model)}
    agent |= planner | found
    flags = {"agent": agent["agent"], "planner": "icem", "seed": seed, "workers": 1, "threads": 1}
    flags |= {"episodes": len(returns), "max_steps": None, "policy": "medium", "out": str(folder)}
    flags |= {"env": environment["id"], "environment": environment, "model": agent["model"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(flags | agent["settings"]))
    played = {"name": "x", "returns": returns, "episodes": [*range(len(returns))], "seed": seed}
    played |= {"planning_ms_per_step": 2.0, "normalized_score": None}
    (folder / "summary.json").write_text(json.dumps(played | agent | {"complete": complete}))
    return folder


def write(folder, config, lines, summary):
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder
