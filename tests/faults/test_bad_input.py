"""Bad input to every command: its exit code, one sentence that names it, and nothing written."""

import shutil
from pathlib import Path

import pytest
import torch

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.models.settings import ModelSettings
from mbrl_bilevel.scripts.main import run
from tests.faults.cases import DATASET
from tests.faults.conftest import Tally

TRAIN = f"train-model --dataset {DATASET} --steps 10 --hidden 4"
COLLECT = "collect --env Pendulum-v1 --policy random"
AGENT = "eval-agent --env Pendulum-v1 --episodes 1 --max-steps 2 --model"

# Of the command line, {here} is a folder with: a file, a folder `full` with a file in it, a sound
# `model`, one with damaged `weights`, one whose `description` is of another model, one of `code`.
TABLE = [
    ("nonsense", 2, "unknown command 'nonsense'"),
    ("train-model", 2, "required"),
    (f"{TRAIN} --out {{here}}/run --nonsense 1", 2, "--nonsense"),
    (f"{TRAIN} --out {{here}}/run --steps many", 2, "--steps"),
    (f"{TRAIN} --out {{here}}/run --objective best", 2, "no objective 'best'"),
    (f"{TRAIN} --out {{here}}/run --steps 0", 2, "--steps 0"),
    (f"{TRAIN} --out {{here}}/run --batch-size 0", 2, "--batch-size 0"),
    (f"{TRAIN} --out {{here}}/run --members 0", 2, "--members 0"),
    (f"{TRAIN} --out {{here}}/run --elites 9", 2, "--elites 9"),
    (f"{TRAIN} --out {{here}}/run --learning-rate -1", 2, "--learning-rate -1.0"),
    (f"{TRAIN} --out {{here}}/run --learning-rate nan", 2, "--learning-rate nan"),
    (f"{TRAIN} --out {{here}}/run --clip-norm 0", 2, "--clip-norm 0.0"),
    (f"{TRAIN} --out {{here}}/run --env Hopper-v5", 2, "not in Hopper-v5"),
    (f"{TRAIN} --out {{here}}/run --resume", 2, "no run to continue"),
    (f"{TRAIN} --out {{here}}/run --cold-restart", 2, "it has no outer level"),
    (
        f"{TRAIN} --out {{here}}/run --objective pg --reward neural",
        2,
        "--reward neural: choose one of",
    ),
    (f"{TRAIN} --out {{here}}/file", 2, "is a file"),
    (f"{TRAIN} --out {{here}}/full", 2, "is not empty"),
    (f"{TRAIN} --out /proc/run", 2, "cannot be written"),
    ("train-model --dataset no/such-v0 --out {here}/run", 2, "no data set 'no/such-v0'"),
    ("train-model --dataset ../../etc/x-v0 --out {here}/run", 2, "neither the folder"),
    ("train-model --dataset /etc --out {here}/run", 2, "neither the folder"),
    ("train-model --dataset {here}/file --out {here}/run", 2, "neither the folder"),
    (f"{COLLECT} --steps 1 --dataset my/new-v0", 2, "--steps 1"),
    (f"{COLLECT} --steps 9 --seed -1 --dataset my/new-v0", 2, "--seed -1"),
    (f"{COLLECT} --steps 9 --dataset ../new-v0", 2, "no data set id"),
    (f"{COLLECT} --steps 9 --dataset my/new", 2, "no data set id"),
    (f"{COLLECT} --steps 9 --dataset {DATASET}", 2, "already exists"),
    (f"{COLLECT} --steps 9 --dataset {DATASET}/in-v0", 2, "would lie inside"),
    ("collect --env Pendulm-v1 --policy random --steps 9 --dataset my/new-v0", 2, "did you mean"),
    ("collect --env CartPole-v1 --policy random --steps 9 --dataset my/new-v0", 2, "actions"),
    ("collect --env Pendulum-v1 --policy good --steps 9 --dataset my/new-v0", 2, "choose one of"),
    ("eval-model --model {here}/nothing", 2, "holds no model"),
    ("eval-model --model {here}/file", 2, "holds no model"),
    ("eval-model --model {here}/weights", 2, "is damaged"),
    ("eval-model --model {here}/description", 2, "does not fit its own description"),
    (f"eval-model --model {{here}}/model --dataset {DATASET} --horizons 0", 2, "at least 1"),
    (f"eval-model --model {{here}}/model {{here}}/model --dataset {DATASET}", 2, "twice"),
    ("eval-model --model {here}/model --dataset ../x", 2, "neither the folder"),
    (f"{AGENT} {{here}}/nothing", 2, "holds no model"),
    (f"{AGENT} {{here}}/weights", 2, "is damaged"),
    (f"{AGENT} {{here}}/model --episodes 0", 2, "--episodes 0"),
    (f"{AGENT} {{here}}/model --horizon 0", 2, "horizon 0"),
    (f"{AGENT} {{here}}/model --planner best", 2, "no planner 'best'"),
    (f"{AGENT} {{here}}/model --env Hopper-v5", 2, "trained for Pendulum-v1"),
    ("eval-agent --model {here}/code", 2, "would import code"),
    ("sanity --out {here}/full", 2, "not empty"),
    ("reproduce published --seeds 0", 2, "--seeds 0"),
    ("reproduce uci --data {here}/full", 2, "holds no data set"),
    ("bench speed", 2, "speed"),
    ("train-model --device cuda --dataset x/yy-v0 --out {here}/run", 2, "CUDA"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, datasets: Path) -> Path:
    folder = tmp_path_factory.mktemp("here")
    (folder / "file").write_text("mine")
    (folder / "full").mkdir()
    (folder / "full/notes.txt").write_text("mine")
    envs = {"model": "Pendulum-v1", "weights": "Pendulum-v1", "code": "os:Evil-v0"}
    for name, env in envs.items():
        DynamicsModel(3, 1, ModelSettings(members=2, hidden=(4,)), env_id=env).save(folder / name)
    (folder / "weights/model.safetensors").write_bytes(b"\x80\x04.")  # a pickle
    DynamicsModel(4, 1, ModelSettings(members=2, hidden=(4,))).save(folder / "description")
    shutil.copy(folder / "model/model.yaml", folder / "description/model.yaml")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("line", "code", "words"), TABLE, ids=[line for line, *_ in TABLE])
def test_bad_input(
    line: str,
    code: int,
    words: str,
    here: Path,
    tally: Tally,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--device cuda" in line and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    before = content(here)
    with tally.fault("bad input"):
        try:
            ended = run(line.format(here=here).split())
        except SystemExit as end:  # of a flag that does not exist, or a value of another kind
            ended = int(end.code or 0)
        said = capsys.readouterr()
        assert ended == code
        assert said.out == ""
        assert words in said.err
        assert "Traceback" not in said.err
        assert content(here) == before
