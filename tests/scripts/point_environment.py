"""An environment of one's own as users register it: `--env MODULE:Point-v0`."""

import gymnasium

from mbrl_bilevel.envs.tasks import register_task
from tests.agents.point import STEPS, TASK

gymnasium.register("Point-v0", entry_point="tests.agents.point:Point", max_episode_steps=STEPS)
register_task(TASK)
