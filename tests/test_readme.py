"""The README's promises: its example runs as printed, its commands exist."""

import re
from pathlib import Path
from typing import Any

from mbrl_bilevel.models.dynamics import DynamicsModel
from mbrl_bilevel.scripts.main import COMMANDS, run

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_library_example_runs_as_it_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))
    monkeypatch.chdir(tmp_path)
    made = ["collect", "--env", "Pendulum-v1", "--policy", "random", "--steps", "2000"]
    assert run([*made, "--dataset", "pendulum/random-v0"]) == 0
    example, other_agents = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert DynamicsModel.load(tmp_path / "pendulum-model").members == 5
    short = other_agents.replace("runs/pendulum", "pendulum-model").replace("10_000", "101")
    named: dict[str, Any] = {}
    exec(compile(short, "README.md", "exec"), named)
    assert named["agent"].num_timesteps == 101
    assert named["env"].observation_space.contains(named["env"].reset(seed=0)[0])
    r2 = float(re.search(r"r2=([-\d.]+)", capsys.readouterr().out)[1])
    assert r2 > 0.7  # a model that has learned nothing has 0


def test_the_table_of_commands_is_complete():
    table = set(re.findall(r"^\| `([a-z-]+)", README, re.MULTILINE))
    assert table == set(COMMANDS)


def test_every_file_that_a_document_links_to_is_there():
    root = Path(__file__).parent.parent
    documents = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    assert len(documents) > 10
    for document in documents:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)[^)]*\)", text):
            made = "generated/" in target  # by the build of the site
            assert made or (document.parent / target).exists(), f"{document}: {target}"
