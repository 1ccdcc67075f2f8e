"""Real steps a second of DHMBPO, fits included, and what a step's update is made of."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from mbrl_bilevel.agents.build import make_agent
from mbrl_bilevel.agents.checks import Acting
from mbrl_bilevel.agents.dhmbpo import DHMBPO
from mbrl_bilevel.agents.refit import in_blocks
from mbrl_bilevel.agents.settings import DHMBPOSettings
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.scripts.measurement import Measurement
from mbrl_bilevel.scripts.timing import take_turns

ENV, START, STEPS = "Hopper-v5", 1_000, 20  # random steps, and those of a round
FIT_STEPS = 20  # of a round


def measure(rounds: int, device: torch.device, seed: int) -> Measurement:
    """The defaults on Hopper-v5, without evaluations."""
    agent = _started(device, seed)
    updates, settings = agent.updates, agent.settings
    data = in_blocks(agent.replay.in_order())
    size = replace(settings.model, model_steps=FIT_STEPS)
    agent.fits.size, agent.fits.fitted_to = size, agent.replay.added  # no first fit any more

    def rollout(*, gradients: bool) -> Callable[[], None]:
        def run() -> None:
            with torch.set_grad_enabled(gradients):
                for _ in range(STEPS):
                    updates.differentiated_rollout()

        return run

    def detached() -> None:
        for _ in range(STEPS):
            updates.detached_rollout(agent._starts(settings.policy.policy_batch_size))

    def update() -> None:
        for _ in range(STEPS):
            updates.update(agent._starts)

    def steps() -> None:
        for _ in range(STEPS):
            agent.train_step()

    calls = {
        "real step": steps,
        "update": update,
        "differentiated rollout": rollout(gradients=True),
        "the same without gradients": rollout(gradients=False),
        "detached rollout": detached,
    }
    seconds = take_turns(calls, rounds)
    milliseconds = {name: 1e3 * median(s) / STEPS for name, s in seconds.items()}
    fits = take_turns({"fit": lambda: agent.fits.fit_to(data)}, rounds)["fit"]
    fit_step = 1e3 * median(fits) / FIT_STEPS
    usual = DHMBPOSettings()
    fit_share = fit_step * usual.model.model_steps / usual.refits.refit_every
    every = settings.policy.detached_every
    return Measurement(
        ours=1e3 / (milliseconds["real step"] + fit_share),
        unit="real steps/s",
        more={
            **{f"{name}, ms": spent for name, spent in milliseconds.items()},
            f"detached rollout, its {every}th of an update, ms": milliseconds["detached rollout"]
            / every,
            "gradient step of a fit, ms": fit_step,
            "fits for each real step, ms": fit_share,
        },
    )


def _started(device: torch.device, seed: int) -> DHMBPO:
    """An agent that has made its random steps, a short fit and as many updates as a round."""
    usual = DHMBPOSettings()
    settings = replace(
        usual,
        start_steps=START,
        refits=replace(usual.refits, refit_every=1_000_000, first_model_steps=FIT_STEPS),
        policy=replace(usual.policy, first_updates_per_step=1, critic_updates=STEPS),
    )
    agent = make_agent(settings, Acting(env=EnvSpec(ENV), seed=seed), device=device)
    assert isinstance(agent, DHMBPO)
    for _ in range(START + STEPS):
        agent.train_step()
    return agent
