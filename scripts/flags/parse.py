"""From a command line to the values of flags; tyro reads the words and prints the help."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, field, make_dataclass
from itertools import takewhile
from typing import Any, TypeVar

import tyro

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.ranges import check_ranges, choices, flag
from mbrl_bilevel.scripts.flags.group import Group, group_of
from mbrl_bilevel.scripts.flags.tyro_class import is_positional, tyro_class
from mbrl_bilevel.scripts.flags.words import HELP_ALL, is_help, refuse_unknown

Settings = TypeVar("Settings")

# Left out of --help where there are many flags, and shown by --help-all.
SELDOM = frozenset(
    {
        *(
            "threads",
            "precision",
            "checkpoint_seconds",
            "unchecked_task",
            "log_every",
            "learn_reward",
        ),
        *("model_learning_rate", "model_weight_decay", "model_schedule", "model_evaluations"),
        *("model_held_out", "imagined_rounds", "recent_states", "policy_batch_size"),
        *("scale_temperature", "entropy_in_values", "target_rate", "actor_learning_rate"),
        *("averaging_rate", "termination_cost", "reward_scale", "first_model_steps"),
        *("model_batch_size", "model_resampling", "layer_norm", "dropout", "noise"),
        *("first_updates_per_step", "critic_updates", "detached_every", "detached_rounds"),
        *("critic_dropout", "critics", "target_entropy", "critic_layer_norm", "plugin"),
        *("model_held_out_rows", "model_patience", "model_evaluate_every", "model_progress_level"),
        *("model_cap", "model_optimizer", "penalty_samples", "rollout_cut", "cut_quantile"),
        *("cut_scale", "cache", "recent_starts", "multi_step", "max_steps"),
    }
)


def parse_flat(kind: type[Settings], argv: Sequence[str], command: str, summary: str) -> Settings:
    """The settings of a command whose flags are one dataclass.

    Raises:
        InputError: an unknown flag, or a value out of range. SystemExit: tyro's own, with code 0
            after help or 2 for what it cannot read.
    """
    group = group_of(kind)
    refuse_unknown(command, argv, group.hints)
    _refuse_first_words(argv, group)
    given = vars(_parsed(command, tyro_class(group), argv, summary))
    for one in group.flags:
        positional = is_positional(one)
        # Of a flag without values the command itself says what to name.
        missing = (None, ()) if positional else (None,)
        if one.default is MISSING and given[one.name] in missing:
            raise InputError(f"{one.name.upper() if positional else flag(one.name)} is required")
    return built(kind, given)


def parse_groups(
    groups: Mapping[str, Group],
    argv: Sequence[str],
    command: str,
    summary: str,
    shown: Mapping[str, Group] | None = None,
) -> dict[str, dict[str, Any]]:
    """The values that a command line gives, by group and name; what is not given is not there.

    `shown` are the groups that help shows, if not all.

    Raises:
        InputError: an unknown flag. SystemExit: as of `parse_flat`.
    """
    known = {name: hint for group in groups.values() for name, hint in group.hints.items()}
    refuse_unknown(command, argv, known)
    hidden = SELDOM if is_help(argv) and HELP_ALL not in argv else frozenset[str]()
    if hidden & set(known):
        summary += f"\n\nSeldom needed flags are left out here; {HELP_ALL} shows them too."
    if is_help(argv) and shown is not None:
        groups = shown
    flags = make_dataclass(
        "Flags",
        [
            (name, tyro_class(group, hidden), field(metadata={"help": group.text}))
            for name, group in groups.items()
        ],
        kw_only=True,
    )
    words = ["--help" if word == HELP_ALL else word for word in argv]
    found = _parsed(command, flags, words, summary)
    return {
        name: {k: v for k, v in vars(getattr(found, name)).items() if v is not None}
        for name in groups
    }


def _refuse_first_words(argv: Sequence[str], group: Group) -> None:
    """Refuses what stands before all flags where it is none of the words that can."""
    known = [word for one in group.flags if is_positional(one) for word in choices(one.hint)]
    for word in takewhile(lambda word: not word.startswith("-"), argv):
        if known and word not in known:
            raise InputError(f"{word!r}: choose from {', '.join(known)}")


def built(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Settings out of the values that were given, in their ranges."""
    made = kind(**{name: value for name, value in given.items() if value is not None})
    check_ranges(made)
    return made


def _parsed(command: str, flags: Any, words: Sequence[str], summary: str) -> Any:
    return tyro.cli(
        flags,
        prog=f"mbrl-bilevel {command}",
        args=list(words),
        description=summary,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitArgPrefixes,
            tyro.conf.DisallowNone,
        ),
    )
