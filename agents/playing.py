"""Returns of an agent or a policy in a real environment."""

from mbrl_bilevel.agents.behaviour import Policy, PolicyAgent
from mbrl_bilevel.agents.episode import run_episode
from mbrl_bilevel.agents.parallel import episode_seeds
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.protocols import Agent


def play(
    agent: Agent | Policy,
    env: str | EnvSpec,
    *,
    episodes: int = 5,
    seed: int = 0,
    max_steps: int | None = None,
) -> list[float]:
    """Undiscounted returns of episodes that `seed` decides; a policy acts by its mean.

    Episodes are those of `eval-agent` with the same seed, one after the other in this process, and
    end after `max_steps` steps at the latest.

    Raises:
        InputError: an environment that cannot be made, or what it returns is not finite.
    """
    made = make_env(env)
    acting = agent if isinstance(agent, Agent) else PolicyAgent(agent, None)
    try:
        return [
            run_episode(
                acting,
                made,
                episode_seeds(seed, number)[0],
                name=f"episode {number}",
                max_steps=max_steps,
            ).total_reward
            for number in range(episodes)
        ]
    finally:
        made.close()
