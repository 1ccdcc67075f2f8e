"""An episode of an agent that is built from its spec, in whatever process it is played."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from mbrl_bilevel.agents.agent_spec import AgentSpec
from mbrl_bilevel.agents.episode import Episode, run_episode
from mbrl_bilevel.agents.parallel import episode_seeds
from mbrl_bilevel.data.env_spec import EnvSpec
from mbrl_bilevel.envs.make import make_env
from mbrl_bilevel.envs.video import write_video


@dataclass(frozen=True)
class PlayEpisode:
    """Episode `index` of an evaluation, the same wherever and whenever it is played.

    `video` takes the first episode's frames.
    """

    spec: AgentSpec
    env: str | EnvSpec
    seed: int
    max_steps: int | None = None
    video: Path | None = None

    def __call__(self, index: int, on_step: Callable[[int, float], None] | None = None) -> Episode:
        filmed = self.video if index == 0 else None
        env_seed, agent_seed = episode_seeds(self.seed, index)
        with ExitStack() as stack:
            mode = {"render_mode": "rgb_array"} if filmed is not None else {}
            env = make_env(self.env, **mode)
            stack.callback(env.close)
            agent = self.spec.agent(env, self.env, agent_seed)
            on_frame = None
            if filmed is not None:
                fps = env.metadata.get("render_fps", 30)
                on_frame = stack.enter_context(write_video(filmed, fps))
            episode = run_episode(
                agent,
                env,
                env_seed,
                name=f"episode {index}",
                max_steps=self.max_steps,
                on_step=on_step,
                on_frame=on_frame,
            )
        planner = getattr(agent, "planner", None)  # a policy has none
        return replace(episode, non_finite_sequences=getattr(planner, "non_finite_sequences", 0))
