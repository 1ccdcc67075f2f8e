"""Whatever is wrong with an environment or a data set: one sentence, and nothing is written."""

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.envs.tasks import TASKS, Task
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.products import plain_products
from mbrl_bilevel.scripts import eval_agent, main, train_agent
from tests.agents.generated_env import Generated, Habits
from tests.data.minari_files import episode, write
from tests.hypothesis_settings import TIMES, examples
from tests.scripts.test_eval_agent import in_this_process
from tests.scripts.test_train_agent import InThisProcess
from tests.scripts.tiny_agents import tiny

pytestmark = [pytest.mark.situation("refused"), pytest.mark.filterwarnings("ignore")]
HERE = "tests.agents.generated_env"
TASK = Task(
    "Generated-v0",
    lambda obs, act, next_obs: -next_obs.square().sum(-1),
    lambda next_obs: next_obs[..., 0] > 1e6,
    (),
)
COMMANDS: dict[str, tuple[str, ...]] = {
    "collect": ("--policy", "random", "--steps", "30", "--dataset", "new/data-v0"),
    "eval-agent": ("--agent", "policy", "--policy", "random", "--episodes", "2", "--out", "new/o"),
    **{
        f"train-agent {agent}": (
            *("--agent", agent, "--out", "new/run", "--steps", "60", "--start-steps", "50"),
            *tiny(agent, episodes="1"),
        )
        for agent in ("sac", "mbpo", "pets")
    },
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands play in this process, in a folder of their own."""
    (tmp_path / "datasets").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.setattr(train_agent, "PolicyEvaluation", InThisProcess)
    monkeypatch.setattr(eval_agent, "play_episodes", in_this_process)
    for name in ("Generated-v0", "GeneratedByClass-v0", "GeneratedEndless-v0"):
        monkeypatch.setitem(TASKS, name, TASK)
    before = Generated.habits
    yield
    Generated.habits, Generated.replaced, Generated.log = before, {}, []
    plain_products()


def content(folder: Path) -> dict[str, int]:
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns * p.is_file() for p in folder.rglob("*")
    }


def refused(
    argv: list[str], folder: Path, capsys: pytest.CaptureFixture[str], *, at_once: bool = True
) -> str:
    """The sentence of a command that refuses its input; `at_once`: before any work."""
    before = content(folder)
    capsys.readouterr()
    assert main.run(argv) == 2
    torch.set_flush_denormal(False)  # hypothesis counts on small numbers
    captured = capsys.readouterr()
    assert content(folder) == before
    assert captured.out == ""
    assert "Traceback" not in captured.err
    lines = [line for line in re.split(r"[\n\r]", captured.err) if line.strip()]
    lines = [line for line in lines if not line.startswith("warning: ")]
    sentence = f"mbrl-bilevel {argv[0]}: "
    assert [line.startswith(sentence) for line in lines].count(True) == 1
    assert lines[-1].startswith(sentence)
    assert len(lines) == 1 or not at_once, lines
    assert len(lines[-1]) < 600
    return lines[-1].removeprefix(sentence)


WHATEVER = spaces.Box(-np.inf, np.inf, (2,))
SPACES: dict[str, dict[str, spaces.Space]] = {
    "actions without bounds": {"action_space": WHATEVER},
    "actions with one bound": {
        "action_space": spaces.Box(np.array([-1, 0]), np.array([1, np.inf]), dtype=np.float64)
    },
    "actions to choose from": {"action_space": spaces.Discrete(3)},
    "actions in a table": {"action_space": spaces.Box(-1, 1, (2, 2))},
    "no actions": {"action_space": spaces.Box(-1, 1, (0,))},
    "images": {"observation_space": spaces.Box(0, 255, (8, 8, 3), np.uint8)},
    "text": {"observation_space": spaces.Text(5)},
    "a tuple": {"observation_space": spaces.Tuple([WHATEVER, WHATEVER])},
    "a Dict with an image": {
        "observation_space": spaces.Dict(a=WHATEVER, b=spaces.Box(0, 255, (8, 8, 3), np.uint8))
    },
    "no observations": {"observation_space": spaces.Box(-1, 1, (0,))},
    "another size": {"observation_space": spaces.Box(-np.inf, np.inf, (7,))},
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", SPACES)
def test_spaces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    Generated.habits, Generated.replaced = Habits({"": 2}), SPACES[name]
    argv = [*command.split()[:1], "--env", f"{HERE}:Generated-v0", *COMMANDS[command]]
    refused(argv, tmp_path, capsys, at_once=name != "another size")


@pytest.mark.parametrize("command", COMMANDS)
def test_environments_that_are_not_stepped(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
) -> None:
    Generated.habits = Habits({"": 2})
    monkeypatch.setattr(Generated, "step", lambda *_: pytest.fail("a step was taken"))
    name = "GeneratedByClass-v0" if command == "collect" else "GeneratedEndless-v0"
    words = "register it by name" if command == "collect" else "--max-steps"
    argv = [*command.split()[:1], "--env", f"{HERE}:{name}", *COMMANDS[command]]
    assert words in refused(argv, tmp_path, capsys)


FAULTS = (
    *("nan observation", "infinite observation", "short observation", "no observation"),
    *("nan reward", "two rewards", "no reward", "text as reward", "complex reward"),
)


@pytest.mark.parametrize("command", COMMANDS)
@examples(6)
@given(
    fault=st.sampled_from(FAULTS),
    at=st.integers(0, 29),
    size=st.integers(1, 3),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple),
    reuses=st.booleans(),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_answers_that_are_none(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    fault: str,
    at: int,
    size: int,
    lengths: tuple[int, ...],
    reuses: bool,
    dtype: str,
) -> None:
    at = at if "observation" in fault else max(at, 1)
    if command == "eval-agent":
        lengths, at = (30,), min(at, 15)  # it plays but two episodes
    ends = ("truncated",) * len(lengths)
    Generated.habits = Habits(
        {"": size}, obs_dtype=dtype, lengths=lengths, ends=ends, reuses=reuses, faults={at: fault}
    )
    argv = [*command.split()[:1], "--env", f"{HERE}:Generated-v0", *COMMANDS[command]]
    sentence = refused(argv, tmp_path, capsys, at_once=False)
    assert "the environment Generated-v0 returned" in sentence
    assert ("at the reset of" if at == 0 else "at step ") in sentence


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    DynamicsModel(3, 2, ModelSettings(members=1, hidden=(4,)), generator=torch.Generator()).save(
        folder
    )
    return folder


def metadata(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Any], None]:
    def damage(folder: Path, _: Any) -> None:
        path = folder / "metadata.json"
        said = json.loads(path.read_text())
        changed = change(said)
        path.write_text(json.dumps(said if changed is None else changed))

    return damage


def array(name: str, change: Callable[[np.ndarray, int], Any]) -> Callable[[Path, Any], None]:
    """Puts another array in place of one of an episode; `change` gets a random row."""

    def damage(folder: Path, rng: np.random.Generator) -> None:
        with h5py.File(folder / "main_data.hdf5", "r+") as file:
            group = file[f"episode_{rng.integers(len(file))}"]
            values = group[name][()]
            changed = change(values, int(rng.integers(len(values))))
            del group[name]
            if changed is not None:
                group[name] = changed

    return damage


def put(value: Any, dtype: Any = None) -> Callable[[np.ndarray, int], np.ndarray]:
    def change(values: np.ndarray, row: int) -> np.ndarray:
        values = values.astype(dtype or values.dtype)
        values[row] = value
        return values

    return change


def cut(folder: Path, rng: np.random.Generator) -> None:
    path = folder / "main_data.hdf5"
    raw = path.read_bytes()
    path.write_bytes(raw[: int(rng.integers(len(raw) // 2))])


FLAGS, REAL = ("terminations", "truncations"), ("observations", "actions", "rewards")
DAMAGE: dict[str, Callable[[Path, Any], None]] = {
    **{f"{v} in {n}": array(n, put(v, float)) for n in REAL for v in (math.nan, math.inf, -1e39)},
    **{f"{n} short": array(n, lambda a, _: a[:-1]) for n in (*REAL, *FLAGS)},
    **{f"{n} long": array(n, lambda a, _: np.concatenate([a, a[:1]])) for n in (*REAL, *FLAGS)},
    **{f"{n} wide": array(n, lambda a, _: np.stack([a, a], -1)) for n in (*REAL, *FLAGS)},
    **{f"{n} flat": array(n, lambda a, _: a.ravel()) for n in ("observations", "actions")},
    **{f"{n} gone": array(n, lambda *_: None) for n in (*REAL, *FLAGS)},
    **{f"{n} of text": array(n, lambda a, _: np.full(a.shape, b"x")) for n in (*REAL, *FLAGS)},
    **{f"{n} complex": array(n, lambda a, _: a.astype(complex)) for n in (*REAL, *FLAGS)},
    **{f"{n} of 2": array(n, put(2, int)) for n in FLAGS},
    **{f"{n} of nan": array(n, put(math.nan, float)) for n in FLAGS},
    **{f"{n} of a half": array(n, put(0.5, float)) for n in FLAGS},
    **{f"{n} of -1": array(n, put(-1, int)) for n in FLAGS},
    **{
        f"{key} {value}": metadata(lambda m, k=key, v=value: m.update({k: v}))
        for key in ("total_steps", "total_episodes")
        for value in (0, -1, 1, 10**9, "7", None, 2.5)
    },
    **{
        f"{key} {value!r}": metadata(lambda m, k=key, v=value: m.update({k: v}))
        for key in ("observation_space", "action_space")
        for value in (
            "",
            "{}",
            None,
            3,
            '{"type": "Discrete", "n": 3, "start": 0, "dtype": "int64"}',
        )
    },
    "no observation_space": metadata(lambda m: m.pop("observation_space") and None),
    "a list as metadata": metadata(lambda m: [m]),
    "metadata that are no JSON": lambda f, _: (f / "metadata.json").write_text("{") and None,
    "no metadata": lambda f, _: (f / "metadata.json").unlink(),
    "no data": lambda f, _: (f / "main_data.hdf5").unlink(),
    "data cut": cut,
    "empty data": lambda f, _: (f / "main_data.hdf5").write_bytes(b""),
}
READERS: dict[str, tuple[str, ...]] = {
    "train-model": ("--out", "new/run", "--steps", "2", "--hidden", "4", "--members", "1"),
    "eval-model": (),
    "train-agent": ("--agent", "mopo", "--out", "new/run", "--steps", "2", "--env", "Pendulum-v1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("seed", range(TIMES))
def test_damaged_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Path, damage: str, seed: int
) -> None:
    """Each by one of the commands that read data, in an episode and a row by chance."""
    rng = np.random.default_rng([seed, *damage.encode()])
    lengths = rng.integers(2, 7, rng.integers(1, 5))
    folder = write("my/bad-v0", [episode(int(n), rng) for n in lengths])
    DAMAGE[damage](folder, rng)
    command = sorted(READERS)[int(rng.integers(len(READERS)))]
    argv = [command, "--dataset", "my/bad-v0", *READERS[command]]
    argv += ["--model", str(model)] if command == "eval-model" else []
    sentence = refused(argv, tmp_path, capsys, at_once=True)
    assert "bad-v0" in sentence
