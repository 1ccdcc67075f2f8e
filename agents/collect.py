"""Data collection: episodes of a policy, written as a Minari data set."""

import errno
import importlib.metadata
import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import minari
import numpy as np
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import parse_dataset_id
from minari.namespace import create_namespace, list_local_namespaces
from tqdm import tqdm

from mbrl_bilevel.agents.behaviour import Policy
from mbrl_bilevel.data.dataset_folder import datasets_in, datasets_root, is_dataset_id
from mbrl_bilevel.envs.make import quiet_mujoco
from mbrl_bilevel.envs.stepping import CheckedSteps, Step
from mbrl_bilevel.envs.tasks import reference_scores
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.files import exchange, sync
from mbrl_bilevel.training.folder_lock import FolderLock
from mbrl_bilevel.training.interruption import Interrupted, Interruption

EPISODE = 30_000  # bytes that HDF5 takes for an episode beside its numbers, at the most
ASIDE = ".collect-"  # folders in which data sets are written before they are moved to their place


@dataclass(frozen=True)
class Rollouts:
    """Episodes in the order of their collection, and the returns of the complete ones."""

    episodes: list[EpisodeBuffer]
    complete_returns: list[float]

    @property
    def mean_return(self) -> float:
        """Over complete episodes; where there is none, of the single cut one."""
        if self.complete_returns:
            return float(np.mean(self.complete_returns))
        return float(np.sum(self.episodes[0].rewards))


def new_dataset_path(dataset_id: str, *, overwrite: bool = False) -> Path:
    """Where a new data set of this id will stand.

    Raises:
        InputError: no valid id, one that is taken (without `overwrite`), or a place that cannot be
            written.
    """
    if not is_dataset_id(dataset_id):
        raise InputError(
            f"{dataset_id!r} is no data set id; it takes the form 'namespace/name-v0' "
            "(letters, digits, - and _; a namespace of 2 characters or more, or none)"
        )
    root = datasets_root()
    path = root / dataset_id
    taken = (path / "data").exists()
    if taken and not overwrite:
        raise InputError(
            f"data set {dataset_id!r} already exists in {root}; "
            "choose another id or pass --overwrite to replace it"
        )
    if path.exists() and not taken:
        raise InputError(
            f"{path} is a folder but no data set; choose another id than {dataset_id!r}"
        )
    inside = next((p for p in path.parents if root in p.parents and (p / "data").exists()), None)
    if inside is not None:
        raise InputError(
            f"{dataset_id!r} would lie inside the data set {inside}; choose another id"
        )
    if not os.access(root, os.W_OK):
        raise InputError(f"{root} cannot be written; point MINARI_DATASETS_PATH to another folder")
    return path


def check_spec(env: gymnasium.Env) -> None:
    """Refuses an environment whose spec no data set can hold.

    Raises:
        InputError: none, or one with anything in it that has no form as JSON, as a class.
    """
    if env.spec is None:
        raise InputError("the environment has no spec for the data set: make it by gymnasium.make")
    entry = env.spec.entry_point
    if not isinstance(entry, str):
        name = getattr(entry, "__qualname__", type(entry).__name__)
        place = f"{getattr(entry, '__module__', 'module')}:{name}"
        raise InputError(
            f"environment {env.spec.id!r} is registered by the object {name}, which a data set "
            f"cannot hold: register it by name, entry_point={place!r}"
        )
    try:
        env.spec.to_json()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"the spec of environment {env.spec.id!r} cannot be written to a data set ({error}): "
            "register it with plain values, and give its wrappers such"
        ) from None


def roll_out(
    env: gymnasium.Env, policy: Policy, steps: int, *, seed: int, deterministic: bool = False
) -> Rollouts:
    """Exactly `steps` steps, one episode after another; the last one is cut and marked truncated.

    Every episode records the seed of its own reset; a seed gives the same data bit for bit.

    Raises:
        InputError: fewer than 2 steps, a negative seed, or what `CheckedSteps` refuses.
        Interrupted: by SIGINT or SIGTERM, after the step at hand.
    """
    if steps < 2:
        raise InputError(f"--steps {steps}: at least 2 transitions are needed")
    if seed < 0:
        raise InputError(f"--seed {seed}: a seed is 0 or more")
    generator = np.random.default_rng(seed)
    rollouts, checked = Rollouts([], []), CheckedSteps(env)
    # A flag is looked at, for a KeyboardInterrupt may come up where libraries swallow it.
    with tqdm(total=steps, unit="step", desc="collect") as bar, Interruption() as interruption:
        left = steps
        while left > 0:
            noise = None if deterministic else generator
            episode_seed = int(generator.integers(2**31))
            number = len(rollouts.episodes)
            episode, complete = _episode(
                checked, policy, noise, number, episode_seed, left, bar, interruption
            )
            rollouts.episodes.append(episode)
            left -= len(episode)
            if complete:
                rollouts.complete_returns.append(float(np.sum(episode.rewards)))
                bar.set_postfix(mean_return=f"{rollouts.mean_return:.1f}", refresh=False)
    return rollouts


def _episode(
    steps: CheckedSteps,
    policy: Policy,
    generator: np.random.Generator | None,
    number: int,
    seed: int,
    limit: int,
    bar: tqdm,
    interruption: Interruption,
) -> tuple[EpisodeBuffer, bool]:
    """One episode of at most `limit` steps, and whether it is complete."""
    observations = [steps.reset(seed, f"episode {number}")]
    taken: list[Step] = []
    complete = False
    while not complete and len(taken) < limit:
        step = steps.step(policy(observations[-1][None], generator)[0])
        observations.append(step.observation)
        taken.append(step)
        complete = step.terminated or step.truncated
        bar.update()
        if interruption.signal is not None:
            raise Interrupted(interruption.signal)
    ends = np.zeros((2, len(taken)), bool)
    ends[:, -1] = step.terminated, step.truncated or not complete
    episode = EpisodeBuffer(
        seed=seed,
        observations=np.stack(observations),
        actions=np.stack([step.action for step in taken]),
        rewards=np.array([step.reward for step in taken]),
        terminations=ends[0],
        truncations=ends[1],
    )
    return episode, complete


def write_dataset(
    path: Path,
    dataset_id: str,
    rollouts: Rollouts,
    env: gymnasium.Env,
    *,
    algorithm: str,
    description: str,
    command: str,
    overwrite: bool = False,
) -> None:
    """Writes a Minari data set aside and moves it to `path` in one step, over what stood there.

    Whatever interrupts it, `path` holds the old data set, the whole new one, or nothing. Folders
    that killed processes have left are removed.

    Raises:
        InputError: the data cannot be written, or a data set has meanwhile come to stand there
            (without `overwrite`); what `check_spec` refuses.
    """
    check_spec(env)
    root = datasets_root()
    _remove_abandoned_folders(root)
    namespace = parse_dataset_id(dataset_id)[0]
    try:
        with tempfile.TemporaryDirectory(prefix=ASIDE, dir=root) as aside:
            lock = FolderLock(Path(aside))
            _require_room(Path(aside), rollouts)
            with datasets_in(aside), quiet_mujoco():
                _create(dataset_id, rollouts, env, algorithm, description, command)
            if namespace is not None and namespace not in list_local_namespaces():
                create_namespace(namespace)
            _replace(Path(aside) / dataset_id, path, overwrite)
            lock.release()
    except OSError as error:
        raise InputError(
            f"cannot write the data set to {path} ({error}); make room there"
        ) from error


def _require_room(folder: Path, rollouts: Rollouts) -> None:
    """Reserves the room beforehand: HDF5 crashes when the disk is full.

    Raises:
        OSError: there is not room enough for the data set.
    """
    columns = ("observations", "actions", "rewards", "terminations", "truncations")
    arrays = [getattr(episode, name) for episode in rollouts.episodes for name in columns]
    numbers = sum(np.asarray(array).nbytes for array in arrays)
    trial = folder / ".room"
    with open(trial, "wb") as file:
        room = int(1.2 * numbers) + EPISODE * len(rollouts.episodes)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, room)
    trial.unlink()


def _remove_abandoned_folders(root: Path) -> None:
    # A lock dies with its process: a folder whose lock is free belongs to nobody.
    for aside in root.glob(f"{ASIDE}*"):
        try:
            lock = FolderLock(aside)
        except (InputError, OSError):
            continue  # at work, or not ours
        shutil.rmtree(aside, ignore_errors=True)
        lock.release()


def _create(
    dataset_id: str,
    rollouts: Rollouts,
    env: gymnasium.Env,
    algorithm: str,
    description: str,
    command: str,
) -> None:
    assert env.spec is not None
    scores = reference_scores(env)
    version = importlib.metadata.version("mbrl-bilevel")
    with warnings.catch_warnings():
        # Minari asks for the author's e-mail address; a data set here has none.
        warnings.filterwarnings("ignore", message="`author_email` is set to None")
        minari.create_dataset_from_buffers(
            dataset_id,
            rollouts.episodes,
            env=env,
            eval_env=env.spec,
            algorithm_name=algorithm,
            author=f"mbrl-bilevel {version}",
            code_permalink=command,
            description=description,
            ref_min_score=scores[0] if scores else None,
            ref_max_score=scores[1] if scores else None,
        )


def _replace(new: Path, path: Path, overwrite: bool) -> None:
    """Moves `new` to `path`; what stood there goes to the place of `new`."""
    # On the disk before the name is: after a power cut the name must not lead to nothing.
    for file in (new / "data").iterdir():
        sync(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    if overwrite and path.exists():
        exchange(new, path)
        return
    try:
        new.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise InputError(
            f"another data set has meanwhile come to stand in {path}; choose another id or pass "
            "--overwrite to replace it"
        ) from None
