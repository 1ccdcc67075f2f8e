"""Which rows every member sees in each gradient step."""

import torch
from jaxtyping import Int
from torch import Tensor

from mbrl_bilevel.data.episode_parts import part_of_rows
from mbrl_bilevel.errors import InputError
from mbrl_bilevel.training.settings import Resampling

STARVED_FOLD = 0.25  # of the rows that a fold should have
REMEDY = "use held-out outer data instead, or more data"


class Batches:
    """Endless row indices [E, B]: epochs over shuffled rows, each member over rows of its own.

    `rows` [E, N] are the rows that each member may see: all of them in order (shared: every member
    gets the same batch) or drawn with replacement (bootstrap). An epoch's last, smaller batch is
    left out, and the next epoch is shuffled anew. The state is a generator and a position, so that
    an interrupted epoch continues exactly.
    """

    def __init__(
        self,
        rows: Int[Tensor, "e n"],
        batch_size: int,
        generator: torch.Generator,
        *,
        shared: bool,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"a batch size of {batch_size}: choose at least 1")
        self.rows, self.generator, self.shared = rows, generator, shared
        self.batch_size = min(batch_size, rows.shape[1])
        self.per_epoch = rows.shape[1] // self.batch_size
        self._begin_epoch()

    def __next__(self) -> Int[Tensor, "e b"]:
        if self.position >= self.per_epoch:
            self._begin_epoch()
        start = self.position * self.batch_size
        self.position += 1
        return self.order[:, start : start + self.batch_size]

    def _begin_epoch(self) -> None:
        self.epoch_state = self.generator.get_state()
        self.position = 0
        members, count = self.rows.shape
        keys = torch.rand(
            1 if self.shared else members,
            count,
            generator=self.generator,
            device=self.rows.device,
            dtype=torch.float64,  # float32 keys would tie, and ties would favour early rows
        )
        self.order = self.rows.gather(1, keys.argsort(1).expand(members, -1))

    def state(self) -> dict[str, Tensor]:
        return {"epoch_state": self.epoch_state, "position": torch.tensor(self.position)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continues where the state was taken: the epoch's shuffle is drawn again."""
        self.generator.set_state(state["epoch_state"])
        self._begin_epoch()
        self.position = int(state["position"])


def cross_fit(
    episode: Int[Tensor, "n"],
    members: int,
    generator: torch.Generator,
    folds: int | None = None,
    group: Int[Tensor, "n"] | None = None,
) -> tuple[Int[Tensor, "e n1"], Int[Tensor, "e n2"]]:
    """Rows that each member learns from, and the rows left out from it: another fold of episodes.

    With as many `folds` as members (the default) every row is left out by exactly one member; with
    more, members learn from more rows, and some rows are left out by none. Folds differ in length;
    shorter ones are filled up with rows of their own. Episodes of one `group` (`Transitions.group`)
    stay in one fold. Where whole episodes would leave a fold with less than a quarter of its share,
    rows are dealt as `split_by_episode` deals them, which may cut long episodes.

    Raises:
        InputError: fewer than two members, fewer folds than members or too few episodes for the
            folds, of which none is long enough to be cut.
    """
    folds = members if folds is None else folds
    numbers, index = (episode if group is None else group).unique(return_inverse=True)
    if members < 2 or folds < members:
        raise InputError(_unfit(members, folds, len(numbers)))
    fold = None
    if len(numbers) >= folds:
        order = torch.randperm(len(numbers), generator=generator, device=generator.device)
        fold = order.argsort().to(index.device)[index] % folds
    if fold is None or int(fold.bincount(minlength=folds).min()) < STARVED_FOLD * len(fold) / folds:
        try:
            fold = part_of_rows(episode, index, [1 / folds] * folds, generator, remedy=REMEDY)
        except InputError:
            raise InputError(_unfit(members, folds, len(numbers))) from None
    return (
        fill([torch.nonzero(fold != e).squeeze(-1) for e in range(members)]),
        fill([torch.nonzero(fold == e).squeeze(-1) for e in range(members)]),
    )


def _unfit(members: int, folds: int, episodes: int) -> str:
    return (
        f"cross-fitting needs 2 members or more, a fold for each and an episode in each fold; "
        f"there are {members} members, {folds} folds and {episodes} training episodes: " + REMEDY
    )


def fill(rows: list[Tensor]) -> Int[Tensor, "e n"]:
    """Rows of several members in one tensor: shorter ones are filled up with rows of their own."""
    longest = max(len(r) for r in rows)
    return torch.stack([r[torch.arange(longest, device=r.device) % len(r)] for r in rows])


def resample(
    count: int, members: int, resampling: Resampling, generator: torch.Generator
) -> Int[Tensor, "e n"]:
    """The rows of a training set of `count` that each member learns from."""
    if resampling == "shared":
        return torch.arange(count, device=generator.device).expand(members, -1)
    return torch.randint(count, (members, count), generator=generator, device=generator.device)
