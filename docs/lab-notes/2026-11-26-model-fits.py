"""Fits of DHMBPO's model to 10,000 and 25,000 transitions of Hopper-v5, by rules and designs.

The data are those of `collect`: 5,000 random steps, then shipped policies, in the order of time.
Test episodes are others, of the policy that came last.
"""

import csv
import sys
import time
from dataclasses import replace

import torch

from mbrl_bilevel import load_dataset
from mbrl_bilevel.agents.checks import task_of, untrained_model
from mbrl_bilevel.agents.learner_state import ModelState
from mbrl_bilevel.agents.refit import fit_again, in_blocks
from mbrl_bilevel.agents.settings import DHMBPOSettings
from mbrl_bilevel.agents.spaces import Spaces
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.data.replay import Batch
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.evaluation.k_step import k_step
from mbrl_bilevel.evaluation.one_step import one_step
from mbrl_bilevel.evaluation.windows import draw_windows
from mbrl_bilevel.products import fast_products
from mbrl_bilevel.training.kept_moments import KeptMoments

DHMBPO = DHMBPOSettings()
# Members train apart from each other: three tell what eight do, in less time.
DHMBPO = replace(DHMBPO, model=replace(DHMBPO.model, members=3))
HELD_OUT = {"model_stop": "held_out", "model_evaluate_every": 20, "model_held_out": 0.2,
            "model_held_out_rows": 2_000, "model_cap": 3.0}  # fmt: skip
RULES = {
    "steps, cosine": {},
    "held_out, constant": HELD_OUT | {"model_schedule": "constant"},
    "held_out, plateau": HELD_OUT | {"model_schedule": "plateau", "model_patience": 15},
}
LONG = {
    "steps, cosine, moments kept": {},
    "held_out, plateau, cap 12": RULES["held_out, plateau"] | {"model_cap": 12.0},
}
DESIGNS = {
    "as dhmbpo": {},
    "no layer norm": {"layer_norm": False},
    "no dropout": {"dropout": 0.0},
    "noise input": {"noise": "input"},
}
SIZES = 10_000, 25_000
FIELDS = ("data", "model", "rule", "steps", "seconds", "held_out_nll", "test_nll", "one_step",
          "open_loop_20", "open_loop_100")  # fmt: skip


def transitions(*names):
    """Data sets one after the other, as an agent's replay holds them."""
    found = [load_dataset(f"hopper/{name}-v0").transitions for name in names]
    columns = ("observation", "action", "reward", "next_observation", "terminated")
    return Batch(*(torch.cat([getattr(t, c).float() for t in found]) for c in columns))


def first(data, count):
    return in_blocks(Batch(*(column[:count] for column in data)))


def model(**design):
    settings = replace(DHMBPO, model=replace(DHMBPO.model, **design))
    spec = EnvSpec("Hopper-v5")
    spaces, generator = Spaces.of(make_env(spec)), torch.Generator().manual_seed(0)
    return untrained_model(settings, spec, task_of(spec), spaces, generator)


def fitted(of, data, steps, callbacks=(), **rule):
    """Metrics of a fit; processor time, since the machine was shared."""
    settings, began = replace(DHMBPO.refits, **rule), time.process_time()
    generator = torch.Generator().manual_seed(1)
    found = fit_again(of, data, DHMBPO.objective, DHMBPO.model, settings, generator, steps,
                      callbacks=callbacks)  # fmt: skip
    return {"steps": int(found["fit_steps"]), "seconds": time.process_time() - began,
            "held_out_nll": found["held_out_nll"]}  # fmt: skip


def tested(of, name, scale):
    """Errors on episodes that no fit has seen; open loop in deviations of all data."""
    test = load_dataset(f"hopper/{name}-v0").transitions
    found = one_step(of.network.select(of.elites), *of.encode(test))
    windows = draw_windows(test, 100, torch.Generator().manual_seed(2), count=300)
    errors = k_step(of, windows, torch.Generator().manual_seed(3), scale=scale).rmse
    return {"test_nll": found.nll, "one_step": found.rmse,
            "open_loop_20": errors[19].item(), "open_loop_100": errors[99].item()}  # fmt: skip


def main(out, long):
    torch.set_num_threads(1)
    fast_products()
    replay = transitions("random-0", "simple-0", "medium-0")
    scale = replay.observation.std(0)
    parts = {count: (first(replay, count - 1_000), first(replay, count)) for count in SIZES}
    with open(out, "w", newline="") as file:
        rows = csv.DictWriter(file, FIELDS, lineterminator="\n")
        rows.writeheader()

        def note(count, name, rule, fit, of):
            test = {10_000: "simple-1", 25_000: "medium-1"}[count]
            row = {"data": count, "model": name, "rule": rule} | fit | tested(of, test, scale)
            rows.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
            file.flush()

        for count, (before, data) in parts.items():
            warm, moments = model(), KeptMoments()
            fit = fitted(warm, before, 1_200, [moments])
            note(count, "as dhmbpo", "1200 steps, new, 1000 rows fewer", fit, warm)
            state = {k: v.clone() for k, v in ModelState(warm).state().items()}
            for rule, settings in (LONG if long else RULES).items():
                again = model()
                ModelState(again).load_state(state)
                kept = [moments] if "moments" in rule else []
                fit = fitted(again, data, 400, kept, **settings)
                note(count, "as dhmbpo", rule, fit, again)
        for count, (_, data) in parts.items() if not long else ():
            for design, options in DESIGNS.items():
                new = model(**options)
                note(count, design, "600 steps, new", fitted(new, data, 600), new)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:] == ["long"])
