"""What an outer level costs: trainings beside likelihood's, and one outer step by its kind."""

import ctypes
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import get_args

import torch

from mbrl_bilevel.data.transitions import Transitions
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.objectives.settings import (
    BilevelSettings,
    HypergradientName,
    NLLSettings,
)
from mbrl_bilevel.objectives.spec import ObjectiveSpec
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import median_ratio, take_turns
from mbrl_bilevel.training.samples import Samples
from mbrl_bilevel.training.settings import FitSettings
from mbrl_bilevel.training.trainer import Trainer

OBS, ACT, EPISODES, LENGTH = 17, 6, 100, 100  # HalfCheetah's sizes
STEPS = 60  # of a round: 3 outer steps of the default
WIDTHS = (8, 56, 200, 690)  # of two hidden layers and two members: 10^3 to 10^6 parameters
OUTER_STEPS = 5  # of a round


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """Gradient steps a second of `bilevel` beside `nll`, then outer steps by network size."""
    generator = torch.Generator(device).manual_seed(seed)
    parts = [_transitions(episodes, generator) for episodes in (EPISODES, EPISODES // 4)]
    usual = ModelSettings(members=5, hidden=(200, 200, 200, 200))
    whole: dict[str, Callable[[], object]] = {
        name: _steps(_training(spec, usual, parts, generator), STEPS)
        for name, spec in (("ours", BilevelSettings()), ("nll", NLLSettings()))
    }
    seconds = take_turns(whole, rounds)
    more = {"times nll": median_ratio(seconds["ours"], seconds["nll"])}
    for width in WIDTHS:
        more |= _by_hypergradient(width, parts, generator, rounds)
    return Measurement(
        ours=STEPS / median(seconds["ours"]),
        peer=STEPS / median(seconds["nll"]),
        peer_name="nll, the same network and rows",
        ratio=median_ratio(seconds["nll"], seconds["ours"]),
        unit="gradient steps/s",
        more=more,
    )


def _by_hypergradient(
    width: int, parts: list[Transitions], generator: torch.Generator, rounds: int
) -> dict[str, float]:
    """Milliseconds and MiB of an inner step, and of one with an outer step of every kind."""
    settings = ModelSettings(members=2, hidden=(width, width))
    inner = replace(BilevelSettings(), outer_every=1_000_000)
    trainings = {"inner step": _training(inner, settings, parts, generator)}
    for name in get_args(HypergradientName):
        every = replace(BilevelSettings(), outer_every=1, hypergradient=name)
        trainings[f"outer step {name}"] = _training(every, settings, parts, generator)
    size = sum(p.numel() for p in trainings["inner step"].network.parameters())
    calls = {name: _steps(one, OUTER_STEPS) for name, one in trainings.items()}
    seconds = take_turns(calls, rounds)
    found: dict[str, float] = {}
    for name, spent in seconds.items():
        found[f"{name}, {size:,} parameters, ms"] = 1e3 * median(spent) / OUTER_STEPS
        peak = _peak_mib(calls[name])
        if peak is not None:
            found[f"{name}, {size:,} parameters, MiB beside what is kept"] = peak
    return found


def _steps(training: Trainer, count: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(count):
            training.train_step()

    return run


def _training(
    spec: ObjectiveSpec,
    settings: ModelSettings,
    parts: list[Transitions],
    generator: torch.Generator,
) -> Trainer:
    train, held_out = parts
    with torch.device(generator.device):
        model = DynamicsModel(OBS, ACT, settings, generator=generator)
    model.fit_standardizers(train)
    # Of one step: the outer level then begins at once, as it does after a tenth of a real one.
    objective = spec.build(model, train, held_out, steps=1, generator=generator)
    rows, held_rows = (Samples(*model.encode(part)) for part in parts)
    settings_of_fit = FitSettings(steps=1_000)
    return Trainer(model.network, objective, rows, held_rows, generator, settings_of_fit)


def _transitions(episodes: int, generator: torch.Generator) -> Transitions:
    """Episodes of a linear system, driven by random actions and noise."""
    device = generator.device
    moves = 0.1 * torch.randn(OBS + ACT, OBS, generator=generator, device=device)
    obs = torch.randn(episodes, OBS, generator=generator, device=device)
    shown, actions = [obs], []
    for _ in range(LENGTH):
        act = 2 * torch.rand(episodes, ACT, generator=generator, device=device) - 1
        noise = 0.1 * torch.randn(episodes, OBS, generator=generator, device=device)
        obs = 0.9 * obs + torch.cat([obs, act], -1) @ moves + noise
        shown.append(obs)
        actions.append(act)
    rows = torch.stack(shown, 1)
    last = torch.arange(LENGTH, device=device) == LENGTH - 1
    return Transitions(
        observation=rows[:, :-1].flatten(0, 1),
        action=torch.stack(actions, 1).flatten(0, 1),
        reward=torch.zeros(episodes * LENGTH, device=device),
        next_observation=rows[:, 1:].flatten(0, 1),
        terminated=torch.zeros(episodes * LENGTH, dtype=torch.bool, device=device),
        truncated=last.repeat(episodes),
        episode=torch.arange(episodes, device=device).repeat_interleave(LENGTH),
    )


def _peak_mib(call: Callable[[], object]) -> float | None:
    """How far resident memory rises above what is in use, in MiB; None but on Linux with glibc."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is None or not (status.is_file() and reset.is_file()):
        return None
    trim(0)  # what is free goes back to the system
    reset.write_text("5")  # the highest mark falls to what is resident now
    before = _kib("VmRSS", status)
    call()
    return (_kib("VmHWM", status) - before) / 1024


def _kib(name: str, status: Path) -> int:
    lines = (line.split() for line in status.read_text().splitlines())
    return next(int(words[1]) for words in lines if words[0] == f"{name}:")
