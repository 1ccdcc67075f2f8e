"""Environments as people write them: of any sizes, types and habits, and what they returned."""

import copy
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

KINDS_OF_REWARD = {
    "float": float,
    "int": lambda r: round(10 * r),
    "bool": lambda r: r > 0,
    "float32": np.float32,
    "bool_": lambda r: np.bool_(r > 0),
    "array": lambda r: np.array(r),
    "array of one": lambda r: np.array([r]),
    "float32 array of one": lambda r: np.array([r], np.float32),
}
KINDS_OF_FLAG = {"bool": bool, "bool_": np.bool_, "int": int, "array": lambda f: np.array([f])}


@dataclass(frozen=True)
class Habits:
    """What an environment is like; `parts` are the sizes of a Dict's leaves by their paths."""

    parts: dict[str, int]
    obs_dtype: str = "float64"
    low: tuple[float, ...] = (-1.0,)
    high: tuple[float, ...] = (1.0,)
    act_dtype: str = "float32"
    reward: str = "float"
    flag: str = "bool"
    offset: float = 0.0
    constant: bool = False  # the first dimension never changes
    reuses: bool = True  # writes into the arrays that it returned, and that it was given
    lengths: tuple[int, ...] = (5,)  # of its episodes, over and over
    ends: tuple[str, ...] = ("terminated",)
    faults: dict[int, str] = field(default_factory=dict)  # by the step over all episodes; 0: reset


@st.composite
def habits(draw: st.DrawFn) -> Habits:
    names = st.sampled_from(["b", "a", "goal", "x y", "ä"])
    nested = st.dictionaries(
        names | st.tuples(names, names).map("/".join), st.integers(1, 3), min_size=1, max_size=4
    ).filter(lambda d: not any(f"{one}/" in other for one in d for other in d if one != other))
    dims = draw(st.integers(1, 3))
    low = draw(st.lists(st.floats(-1e3, 1e3, width=32), min_size=dims, max_size=dims))
    width = draw(st.lists(st.floats(0.015625, 1e3, width=32), min_size=dims, max_size=dims))
    count = draw(st.integers(1, 4))
    return Habits(
        parts=draw(st.integers(1, 4).map(lambda n: {"": n}) | nested),
        obs_dtype=draw(st.sampled_from(["float64", "float32", "float16", "int64", "uint8"])),
        low=tuple(low),
        high=tuple(a + b for a, b in zip(low, width, strict=True)),
        act_dtype=draw(st.sampled_from(["float32", "float64"])),
        reward=draw(st.sampled_from(sorted(KINDS_OF_REWARD))),
        flag=draw(st.sampled_from(sorted(KINDS_OF_FLAG))),
        offset=draw(st.sampled_from([0.0, 3.0, 100.0])),
        constant=draw(st.booleans()),
        reuses=draw(st.booleans()),
        lengths=tuple(draw(st.lists(st.integers(1, 9), min_size=count, max_size=count))),
        ends=tuple(
            draw(
                st.lists(
                    st.sampled_from(["terminated", "truncated", "both", "never"]),
                    min_size=count,
                    max_size=count,
                )
            )
        ),
    )


class Generated(gymnasium.Env):
    """Numbers at random, by the `habits` of the class; `log` has copies of all that it returned."""

    habits: ClassVar[Habits] = Habits({"": 2})
    replaced: ClassVar[dict[str, spaces.Space]] = {}  # in place of those that the habits give
    log: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        h = self.habits
        dtype = np.dtype(h.obs_dtype)
        whole = dtype.kind in "iu"
        low, high = (0, 250) if whole else (-np.inf, np.inf)
        self.leaves = {
            path: spaces.Box(low, high, (size,), dtype.type) for path, size in h.parts.items()
        }
        self.observation_space = self._nest(self.leaves, spaces.Dict)
        self.action_space = spaces.Box(
            np.array(h.low, h.act_dtype),
            np.array(h.high, h.act_dtype),
            dtype=np.dtype(h.act_dtype).type,
        )
        self.observation_space, self.action_space = (
            self.replaced.get(name, getattr(self, name))
            for name in ("observation_space", "action_space")
        )
        self.arrays = {path: np.zeros(size, dtype) for path, size in h.parts.items()}
        self.episode, self.total = -1, 0

    def _nest(self, leaves: dict[str, Any], kind: Any) -> Any:
        if list(leaves) == [""]:
            return leaves[""]
        tree: dict[str, Any] = {}
        for path, leaf in leaves.items():
            *parents, last = path.split("/")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = leaf
        return self._mapped(tree, kind)

    def _mapped(self, tree: dict[str, Any], kind: Any) -> Any:
        return kind(
            {k: self._mapped(v, kind) if isinstance(v, dict) else v for k, v in tree.items()}
        )

    def _observe(self) -> Any:
        h = self.habits
        for number, (path, array) in enumerate(self.arrays.items()):
            if not h.reuses:
                array = self.arrays[path] = array.copy()
            array[:] = np.clip(h.offset + 20 * self.np_random.standard_normal(array.shape), 0, 250)
            if h.constant and number == 0:
                array[0] = h.offset
        return self._nest(self.arrays, dict)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.count = self.episode + 1, 0
        observation = self._observe()
        type(self).log.append(("reset", copy.deepcopy(self.arrays)))
        return self._faulty(0, observation, 0.0)[0], {}

    def step(self, action: np.ndarray) -> Any:
        h = self.habits
        self.count, self.total = self.count + 1, self.total + 1
        taken = action.copy()
        if h.reuses:
            action[:] = np.nan
        observation, turn = self._observe(), self.episode % len(h.lengths)
        reward = KINDS_OF_REWARD[h.reward](float(self.np_random.standard_normal()))
        end = h.ends[turn] if self.count >= h.lengths[turn] else "never"
        flags = [KINDS_OF_FLAG[h.flag](end in (one, "both")) for one in ("terminated", "truncated")]
        type(self).log.append(
            ("step", taken, copy.deepcopy(self.arrays), copy.deepcopy(reward), *map(bool, flags))
        )
        observation, reward = self._faulty(self.total, observation, reward)
        return observation, reward, *flags, {}

    def _faulty(self, step: int, observation: Any, reward: Any) -> tuple[Any, Any]:
        match self.habits.faults.get(step):
            case "nan observation":
                observation[-1] = np.nan
            case "infinite observation":
                observation[0] = -np.inf
            case "short observation":
                observation = observation[:-1]
            case "no observation":
                observation = None
            case "nan reward":
                reward = np.nan
            case "two rewards":
                reward = np.array([0.0, reward])
            case "no reward":
                reward = None
            case "text as reward":
                reward = "1.0"
            case "complex reward":
                reward = 1j
        return observation, reward


NAME = "tests.agents.generated_env:Generated"
gymnasium.register("Generated-v0", entry_point=NAME, max_episode_steps=20)
gymnasium.register("GeneratedByClass-v0", entry_point=Generated, max_episode_steps=20)
gymnasium.register("GeneratedEndless-v0", entry_point=NAME)
