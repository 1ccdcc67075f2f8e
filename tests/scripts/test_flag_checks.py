"""Every number, path and list of every command: what is refused, in which words, before any work.

Flags of train-agent beside the shared ones are tested with train-agent.
"""

import importlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import pytest

from mbrl_bilevel.errors import InputError
from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.ranges import Count, Range, check_ranges
from mbrl_bilevel.scripts.main import COMMANDS, run

HUGE = "99999999999999999999"
TRAIN = "train-model --dataset flags/train-v0 --steps 2 --hidden 4 --members 2 --out {here}/new"
BILEVEL = f"{TRAIN} --objective bilevel"
LINES = {
    "beta": f"{TRAIN} --objective beta_nll",
    "outer-learning-rate": BILEVEL,
    "entropy-weight": BILEVEL,
}  # of flags that belong to an objective
COLLECT = "collect --env Pendulum-v1 --policy random --steps 9 --dataset flags/new-v0"
MODEL = "eval-model --model {here}/model --dataset flags/train-v0"
AGENT = (
    "eval-agent --model {here}/model --episodes 1 --max-steps 2 --horizon 2 --samples 4 "
    "--elites 2 --iterations 1 --out {here}/new"
)
SWEEP = "sweep --set command=train-model dataset=flags/train-v0 seed=0,1 --out {here}/new"
MINIMAL = {
    "demo": "demo --out {here}/new",
    "collect": COLLECT,
    "train-model": TRAIN,
    "eval-model": MODEL,
    "train-agent": "train-agent --agent sac --env Pendulum-v1 --out {here}/new",
    "eval-agent": AGENT,
    "report": "report {here} --out {here}/new",
    "sanity": "sanity gaussian --out {here}/new",
    "sweep": SWEEP,
    "reproduce": "reproduce published",
    "bench": "bench fit",
}


def numbers() -> Iterator[tuple[str, str]]:
    """Command lines, and what their one sentence says."""
    for command in COMMANDS:
        for value in ("-1", HUGE):
            yield f"{MINIMAL[command]} --seed {value}", f"--seed {value}: choose at"
    counts = ["max-transitions", "members", "hidden", "steps", "batch-size", "patience"]
    for line, flags in (
        (TRAIN, counts),
        (BILEVEL, ["samples", "outer-every", "outer-batch-size"]),
        (MODEL, ["horizons"]),
        (AGENT, ["episodes", "max-steps", "workers", "threads"]),
        ("reproduce dynamics", ["seeds", "steps"]),
        ("reproduce mixtures", ["seeds", "steps"]),
        ("bench fit", ["rounds", "threads"]),
        (SWEEP, ["cpus-per-trial", "concurrent"]),
    ):
        for flag in flags:
            for value in ("0", "-1", HUGE):
                yield f"{line} --{flag} {value}", f"--{flag} {value}: choose at"
    for flag in ("learning-rate", "outer-learning-rate", "weight-decay", "clip-norm", "beta"):
        for value in ("-1", "nan"):
            yield f"{LINES.get(flag, TRAIN)} --{flag} {value}", f"--{flag} {float(value)}: choose"
    for flag in ("learning-rate", "outer-learning-rate", "weight-decay", "entropy-weight"):
        yield f"{LINES.get(flag, TRAIN)} --{flag} inf", f"--{flag} inf: choose"
    for flag in ("learning-rate", "outer-learning-rate", "clip-norm", "entropy-weight"):
        yield f"{LINES.get(flag, TRAIN)} --{flag} 0", f"--{flag} 0.0: choose"
    for value in ("-1", "nan"):
        yield f"{TRAIN} --checkpoint-seconds {value}", f"--checkpoint-seconds {float(value)}"
        yield f"{SWEEP} --gpus-per-trial {value}", f"--gpus-per-trial {float(value)}"
    yield f"{TRAIN} --hidden 4 0", "--hidden 4 0: choose at least 1"
    yield f"{TRAIN} --weight-decay 1e9", "a weight decay of 1000000000.0"
    yield f"{BILEVEL} --outer-folds 0", "--outer-folds 0: choose at least 2"
    yield f"{BILEVEL} --weight-exponent 1e9", "--weight-exponent 1000000000.0: choose at most 4"
    yield f"{COLLECT} --steps {HUGE}", f"--steps {HUGE}: choose at most"
    settings = ["horizon", "samples", "iterations", "elites", "action-repeat"]
    for flag in (*settings, "particles"):
        for value in ("0", "-1", HUGE):
            yield f"{AGENT} --{flag} {value}", f"--{flag} {value}: choose at"
    weights = ["beta", "init-std", "discount", "alive-bonus", "pessimism", "disagreement"]
    weights += ["data-support-penalty", "momentum", "population-decay", "keep"]
    for flag in weights:
        for value in ("-1", "nan", "inf"):
            yield f"{AGENT} --{flag} {value}", f"--{flag} {float(value)}: choose"


LISTS = [
    (f"{MODEL} --horizons", "--horizons: name the steps"),
    ("eval-model --model", "--model: name at least one"),
    (f"{MODEL} --model {{here}}/model {{here}}/../here/model", "twice"),
    (f"{AGENT} --planner", "--planner: name at least one"),
    (f"{AGENT} --planner cem cem", "--planner names cem twice"),
    (f"{AGENT} --model", "--agent mpc needs a model"),
    (f"{AGENT} --model {{here}}/model {{here}}/model", "twice"),
    ("reproduce dynamics --envs", "--envs: name at least one"),
    ("reproduce dynamics --envs Hopper-v5 Hopper-v5", "--envs names Hopper-v5 twice"),
    ("reproduce dynamics --envs CartPole-v1", "only flat continuous"),
    ("reproduce dynamics --objectives", "--objectives: name at least one"),
    ("reproduce dynamics --objectives nll nll", "--objectives names nll twice"),
    ("reproduce dynamics --objectives nll magic", "--objectives magic: choose from"),
    ("reproduce published --steps 9", "--steps is no flag of reproduce published"),
    ("reproduce uci --seeds 9", "--seeds is no flag of reproduce uci"),
    ("reproduce sac --data {here}", "--data is no flag of reproduce sac"),
    ("reproduce mixtures --envs Hopper-v5 Ant-v5", "--envs is no flag of reproduce mixtures"),
    ("reproduce sac", "--out"),
]
PATHS = [
    (line, words)
    for command, flag in (
        ("demo", "--out"),
        ("sanity gaussian", "--out"),
        ("reproduce dynamics", "--out"),
        ("reproduce dynamics", "--data"),
        ("reproduce mixtures", "--out"),
        ("reproduce mixtures", "--data"),
        ("reproduce published", "--data"),
        (TRAIN, "--out"),
        (SWEEP, "--out"),
    )
    for line, words in (
        (f"{command} {flag} {{here}}/file", "is a file"),
        (f"{command} {flag} {{here}}/file/new", "cannot be written (Not a directory)"),
        (f"{command} {flag} /proc/new", "cannot be written"),
    )
]
PATHS += [
    (f"{command} --out {{here}}/full", "not empty")
    for command in ("demo", "sanity mdp", TRAIN, SWEEP)
]
PATHS += [
    (f"{AGENT} --out {{here}}/file", "cannot be written"),
    (f"{AGENT} --out /proc/new", "cannot be written"),
    (f"{AGENT} --model {{here}}/file", "holds no model"),
    (f"{AGENT} --agent policy", "--horizon 2 is for planning"),
    ("eval-agent --model {here}/model --agent policy", "holds no policy"),
    ("eval-model --model {here}/full", "holds no model"),
    ("eval-model --model {here}/model {here}/other --out {here}/file", "exists"),
    ("reproduce uci --data {here}/file", "holds no data set"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("flags") / "here"
    for name in ("full", "minari"):
        (folder / name).mkdir(parents=True)
    for name in ("file", "full/notes.txt"):
        (folder / name).write_text("mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
        patch.chdir(folder)
        line = COLLECT.replace("flags/new", "flags/train").replace("--steps 9", "--steps 1000")
        assert run(line.split()) == 0
        for name in ("model", "other"):
            DynamicsModel(3, 1, ModelSettings(members=2, hidden=(4,)), env_id="Pendulum-v1").save(
                folder / name
            )
        yield folder


def everything_in(folder: Path) -> dict[Path, bytes | None]:
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


REFUSED = [*numbers(), *LISTS, *PATHS]


@pytest.mark.situation("refused")
@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line for line, _ in REFUSED])
def test_refused(line: str, words: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = everything_in(here)
    assert run(line.format(here=here).split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err.splitlines()[-1]
    assert everything_in(here) == before


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"train-agent"}))
def test_every_number_has_a_range(command: str) -> None:
    module = importlib.import_module(f"mbrl_bilevel.scripts.{command.replace('-', '_')}")
    hints = get_type_hints(module.Config, include_extras=True)
    for field in fields(module.Config):
        text = str(hints[field.name])
        number = re.search(r"\b(int|float)\b", text) is not None
        if number:
            assert "Range(" in text, field.name


@dataclass
class Flags:
    kind: Literal["plain", "fancy"] | None = None
    """Nothing, or one of two words."""
    share: Annotated[float, Range(0, 1, above=True)] = 0.5
    """Above 0, up to 1."""
    steps: tuple[Count, ...] | None = None
    """Nothing, or numbers of at least 1."""
    limit: Annotated[float, Range(0, math.inf)] = math.inf
    """Infinite too."""


def test_ranges_hold_what_they_say() -> None:
    check_ranges(Flags())
    check_ranges(Flags(share=1.0, steps=(1, 2**31 - 1), limit=0.0))
    for bad, sentence in (
        (Flags(kind="odd"), "--kind odd: choose one of plain, fancy"),
        (Flags(share=0.0), "--share 0.0: choose a number above 0"),
        (Flags(share=math.nan), "--share nan: choose a number above 0"),
        (Flags(share=1.5), "--share 1.5: choose at most 1"),
        (Flags(steps=(3, 0)), "--steps 3 0: choose at least 1"),
        (Flags(steps=(2**31,)), "--steps 2147483648: choose at most 2,147,483,647"),
        (Flags(limit=-1.0), "--limit -1.0: choose at least 0"),
        (Flags(limit=math.nan), "--limit nan: choose at least 0"),
    ):
        with pytest.raises(InputError) as found:
            check_ranges(bad)
        assert str(found.value) == sentence


@pytest.mark.situation("refused")
@pytest.mark.parametrize("line", ["train-model --dataset {} --out a", "eval-model --model={}"])
def test_an_empty_value_is_no_value(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As of a shell variable that is not set; as a path it would be this folder."""
    assert run([part.format("") for part in line.split()]) == 2
    assert "is given an empty value" in capsys.readouterr().err


@pytest.mark.situation("refused")
def test_a_name_that_the_locale_cannot_express(capsys: pytest.CaptureFixture[str]) -> None:
    """What Python makes of the bytes of an umlaut where the locale is ASCII."""
    assert run(["train-model", "--dataset", "a/bb-v0", "--out", "r\udcc3\udcbcns"]) == 2
    assert "no text in this locale" in capsys.readouterr().err
