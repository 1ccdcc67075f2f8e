"""The folder of results of evaluated agents: configuration, figures, curves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from mbrl_bilevel.agents.episode import Episode
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.figures import save
from mbrl_bilevel.evaluation.return_figures import agents_compared, mean_return_so_far
from mbrl_bilevel.files import make_folders, remove_folders, write_text
from mbrl_bilevel.scripts.agent_table import (
    agent_metrics,
    difference_to,
    one_agent,
    side_by_side,
)
from mbrl_bilevel.scripts.candidates import SIMULATOR, Candidate
from mbrl_bilevel.scripts.command import Outcome, say
from mbrl_bilevel.training.tensorboard import PLAYED, write_charts

CONFIG, SUMMARY, FIGURE, VIDEO = "config.yaml", "summary.json", "returns.png", "episode-0.mp4"
Played = Sequence[dict[int, Episode]]  # by agent, by number of the episode


@dataclass(frozen=True)
class Results:
    """A numbered folder for one call of eval-agent; `flags` are its flags as they were taken.

    `scores` are the reference scores of the episodes that are played, if there are any; `made` are
    the folders above it that were not there before.
    """

    folder: Path
    candidates: Sequence[Candidate]
    flags: Mapping[str, Any]
    scores: tuple[float, float] | None
    made: Sequence[Path] = ()

    @classmethod
    def open(
        cls,
        parent: Path,
        candidates: Sequence[Candidate],
        flags: Mapping[str, Any],
        scores: tuple[float, float] | None,
    ) -> "Results":
        """Makes the folder in `parent`; InputError where it cannot be written."""
        folder, made = _numbered_folder(parent, _config(flags, candidates))
        return cls(folder, candidates, flags, scores, made)

    def discard(self) -> None:
        """Leaves nothing behind, where no episode came to its end."""
        (self.folder / CONFIG).unlink(missing_ok=True)
        remove_folders([self.folder, *self.made])

    def video(self, one: Candidate) -> Path | None:
        """Where the first episode's video of an agent goes; None where none is wanted."""
        if not self.flags["video"]:
            return None
        several = len(self.candidates) > 1
        return self.folder / (f"{_file_name(one.name)}-{VIDEO}" if several else VIDEO)

    def write(self, played: Played, seconds: float, complete: bool) -> Outcome:
        """Tells what the finished episodes say; summary.json, returns.png, TensorBoard's events."""
        env_id, seed = self.flags["env"], self.flags["seed"]
        there = [(a, b) for a, b in zip(self.candidates, played, strict=True) if b]
        agents = []
        for one, episodes in there:
            video = self.video(one)
            found = agent_metrics(one, episodes, env_id, seed, self.scores)
            agents.append(found | {"video": None if video is None else str(video)})
        for other in agents[1:]:
            other["difference"] = difference_to(agents[0], other, seed)
        picture = self._draw({one.name: episodes for one, episodes in there})
        common = {
            "complete": complete,
            "seconds": seconds,
            "results": str(self.folder),
            "figure": str(picture),
        }
        if len(self.candidates) == 1:
            found, text = agents[0] | common, one_agent(agents[0])
        else:
            found = {"agents": agents, "env": env_id, "seed": seed, **common}
            text = side_by_side(agents)
        _write_json(self.folder / SUMMARY, found)
        return Outcome(found, f"{text}\nfigure: {picture}")

    def _draw(self, played: Mapping[str, Mapping[int, Episode]]) -> Path:
        """The figure, and TensorBoard's events: a curve of the mean return so far for each agent.

        One run for all of them, in which one chart holds every agent's curve.
        """
        rewards = {
            name: [episodes[index].rewards for index in sorted(episodes)]
            for name, episodes in played.items()
        }
        longest = max(len(one) for of_agent in rewards.values() for one in of_agent)
        title = f"{self.flags['env']}, up to {longest} steps"
        figure = agents_compared(rewards, title, self.flags["seed"])
        path = save(figure, self.folder / FIGURE)
        with SummaryWriter(str(self.folder)) as writer:  # the file: drawing again takes long
            writer.add_image("returns", imread(path), dataformats="HWC")
            write_charts(writer, PLAYED)
            for name, of_agent in rewards.items():
                tag = _file_name(name)
                writer.add_scalar(f"mean_return/{tag}", np.mean([one.sum() for one in of_agent]))
                for step, value in enumerate(mean_return_so_far(of_agent).tolist(), start=1):
                    writer.add_scalar(f"mean_return_so_far/{tag}", value, step)
        return path

    def copy_to_models(self, agents: Sequence[Mapping[str, Any]]) -> None:
        """What was found of each model also goes into a numbered folder of its own.

        There it lies as if the model had been evaluated alone.
        """
        for one, found in zip(self.candidates, agents, strict=True):
            if one.model is None or one.model == SIMULATOR:
                continue
            try:
                folder, _ = _numbered_folder(one.model, _config(self.flags, [one]))
                alone = {key: value for key, value in found.items() if key != "difference"}
                _write_json(folder / SUMMARY, alone | {"complete": True, "results": str(folder)})
            except (InputError, OSError) as error:
                say(f"no copy of the results for {one.name}: {error}")


def _config(flags: Mapping[str, Any], candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Flags as plain values; each agent's settings by its name where there are several."""
    plain = {name: _plain(value) for name, value in flags.items()}
    if len(candidates) > 1:
        settings = {one.name: one.settings for one in candidates}
        return plain | {"agents": settings}
    (one,) = candidates
    return plain | {"model": _plain(one.model), "planner": one.planner} | one.settings


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def _numbered_folder(parent: Path, config: Mapping[str, Any]) -> tuple[Path, list[Path]]:
    """The first of PARENT/eval-001, eval-002, ... that is not there, with the configuration.

    And the folders above it that were made.
    """
    try:
        made = make_folders(parent)
        for number in count(1):
            folder = parent / f"eval-{number:03}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            write_text(folder / CONFIG, yaml.safe_dump(dict(config), sort_keys=False))
            break
    except OSError as error:
        raise InputError(
            f"results cannot be written to {parent} ({error.strerror}): choose another --out"
        ) from None
    return folder, made


def _file_name(name: str) -> str:
    """Of an agent; its name may hold a path."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).lstrip("-.")


def _write_json(path: Path, found: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(found, indent=2) + "\n")
