"""docs/commands.md lists every command, and its examples name commands that there are."""

import re
from pathlib import Path

from mbrl_bilevel.scripts.main import COMMANDS

PAGE = (Path(__file__).parents[2] / "docs/commands.md").read_text()


def test_the_table_of_commands_is_complete():
    listed = re.findall(r"^\| `([a-z-]+)[^`]*` \| `([a-z-]+)", PAGE, re.MULTILINE)
    assert {command for command, _ in listed} == set(COMMANDS)
    assert all(command == example for command, example in listed)
