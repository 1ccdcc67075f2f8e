"""The README's promises: its examples run as printed; links of all documents lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.main import run

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_library_example_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    made = ["collect", "--env", "InvertedPendulum-v5", "--policy", "random", "--steps", "2000"]
    assert run([*made, "--dataset", "inverted-pendulum/random-v0"]) == 0
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert DynamicsModel.load(tmp_path / "pendulum-model").members == 5
    r2 = float(re.search(r"test R2 ([-\d.]+)", capsys.readouterr().out)[1])
    assert r2 > 0.7  # a model that has learned nothing has 0


def test_every_file_that_a_document_links_to_is_there():
    root = Path(__file__).parent.parent
    documents = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    assert len(documents) > 10
    for document in documents:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", text):
            made = "generated/" in target  # by the build of the site
            assert made or (document.parent / target).exists(), f"{document}: {target}"


SMALL = {
    "collect": ("--steps", "600"),
    "train-model": ("--steps", "20", "--members", "2", "--hidden", "8"),
    "eval-model": (),
    "eval-agent": ("--episodes", "1", "--max-steps", "3"),
    "train-agent": (
        *("--start-steps", "505", "--steps", "510", "--model-steps", "5", "--rollouts", "10"),
        *("--members", "2", "--hidden", "8", "--updates-per-step", "1", "--episodes", "1"),
    ),
}


@pytest.mark.slow
def test_the_five_commands_run_as_they_are_printed_but_smaller(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    block = README.split("## Five commands")[1].split("```")[1]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()[1:]]
    assert [line[3] for line in lines] == list(SMALL)
    for words in lines:
        assert words[:3] == ["uv", "run", "mbrl-bilevel"]
        smaller = SMALL[words[3]]
        printed = words[3:]
        for flag in smaller[::2]:
            if flag in printed:
                at = printed.index(flag)
                end = at + 1
                while end < len(printed) and not printed[end].startswith("--"):
                    end += 1
                del printed[at:end]
        assert run([*printed, *smaller]) == 0
