"""Returns under models of one objective less those of a reference, paired by training seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Literal

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.evaluation.returns import CONFIDENCE, Estimate
from mbrl_bilevel.scripts.paired_differences import interval
from mbrl_bilevel.scripts.report_parts import Cell, Table
from mbrl_bilevel.scripts.run_groups import Group
from mbrl_bilevel.scripts.run_reading import Acting

Verdict = Literal["better", "worse", "within", "undecided"]
USUAL = "nll"  # the reference, where there is one


@dataclass(frozen=True)
class Difference:
    """Mean returns of a group less those of the reference, one of each seed that both have.

    `first` and `second` are the mean returns of the reference and of the group, in the same order
    of seeds, over the same episodes.
    """

    group: Group
    reference: Group
    first: Sequence[float]
    second: Sequence[float]
    episodes: int

    @property
    def difference(self) -> Estimate:
        """Mean over seeds and its Student-t interval, None of a single seed."""
        pairs = zip(self.first, self.second, strict=True)
        middle, low, high = interval([new - old for old, new in pairs], CONFIDENCE)
        return Estimate(middle, None if len(self.first) == 1 else (low, high))

    @property
    def share(self) -> Estimate | None:
        """The same by the absolute mean of the reference, which is taken as exact; None for 0."""
        size = abs(mean(self.first))
        if size == 0:
            return None
        value, ends = self.difference
        return Estimate(value / size, ends and (ends[0] / size, ends[1] / size))

    def verdict(self, margin: float) -> Verdict | None:
        """What the interval of the share says; None where there is none."""
        share = self.share
        return None if share is None or share.interval is None else verdict(share.interval, margin)


def verdict(ends: tuple[float, float], margin: float) -> Verdict:
    """better, worse: wholly above the margin, below its negative; within: wholly between."""
    low, high = ends
    if low > margin:
        return "better"
    if high < -margin:
        return "worse"
    return "within" if -margin <= low and high <= margin else "undecided"


def reference_objective(groups: Sequence[Group], named: str | None) -> str | None:
    """The objective to compare with: the named one, or nll where some group has it.

    Raises:
        InputError: no evaluated model was trained by the named one.
    """
    known = sorted({name for group in groups if (name := _objective(group)) is not None})
    if named is None:
        return USUAL if USUAL in known else None
    if named not in known:
        said = f"choose one of {', '.join(known)}" if known else "leave it out"
        raise InputError(f"--reference {named}: no results of eval-agent are of it; {said}")
    return named


def differences(groups: Sequence[Group], reference: str) -> list[Difference]:
    """Each group against those of the reference whose settings are equal, where both have them.

    A pair is of one seed and the same data, and of the episodes that both have played, which start
    alike.
    """
    return [
        found
        for group in groups
        for other in groups
        if _objective(other) == reference != _objective(group) and _comparable(group, other)
        for found in _paired(group, other)
    ]


def _acting(group: Group) -> Acting:
    return group.runs[0].acting or Acting(group.name)


def _objective(group: Group) -> str | None:
    return _acting(group).objective


def _comparable(group: Group, other: Group) -> bool:
    """Whether settings that both have are equal; an objective has some of its own."""
    if _objective(group) is None or (group.task, group.against) != (other.task, other.against):
        return False
    if _acting(group).agent != _acting(other).agent:
        return False
    both = group.settings.keys() & other.settings.keys()
    return all(group.settings[name] == other.settings[name] for name in both)


def _paired(group: Group, other: Group) -> Iterator[Difference]:
    of_other = {run.seed: run.acting for run in other.finished}
    first, second, episodes = [], [], 0
    for run in group.finished:
        ours, theirs = run.acting, of_other.get(run.seed)
        if ours is None or theirs is None or (ours.data, ours.seed) != (theirs.data, theirs.seed):
            continue
        both = sorted(ours.returns.keys() & theirs.returns.keys())
        if both:
            first.append(mean(theirs.returns[i] for i in both))
            second.append(mean(ours.returns[i] for i in both))
            episodes += len(both)
    if first:
        yield Difference(group, other, first, second, episodes)


def difference_table(name: str, found: Sequence[Difference], margin: float) -> Table | None:
    """A row for each; None without any."""
    rows: list[list[Cell]] = [
        [
            one.group.name,
            one.reference.name,
            len(one.first),
            one.episodes,
            one.difference,
            one.share,
            one.verdict(margin) or "none",
        ]
        for one in found
    ]
    if not rows:
        return None
    columns = ["group", "reference", "seeds", "episodes", "difference", "share of the reference"]
    note = (
        "Mean return of each seed less that of the reference with the same seed, data and starts "
        f"of episodes; mean over seeds, {CONFIDENCE:.0%} Student-t interval, and both as a share "
        "of the reference's mean return, without its sign. Verdict: the interval of the share is "
        f"above {margin:g} (better), below -{margin:g} (worse), between them (within), or none of "
        "these (undecided)."
    )
    title = "Paired differences of returns"
    return Table(name, title, [*columns, "verdict"], rows, note, printed=True)
