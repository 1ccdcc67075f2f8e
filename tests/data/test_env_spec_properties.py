"""What is said of an environment comes back from every file as it was, or is refused."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mbrl_bilevel.data.env_spec import EnvSpec, WrapperSpec
from mbrl_bilevel.files import read_yaml
from tests.hypothesis_settings import examples

# what checks annotations while tests run draws at random
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = TEXT.filter(lambda t: t.isprintable() and "$" not in t)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | NUMBERS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(NAMES, PLAIN | st.tuples(NUMBERS, NUMBERS), max_size=4)
WRAPPERS = st.builds(WrapperSpec, NAMES, st.none() | ARGUMENTS)
SPECS = st.builds(
    EnvSpec,
    NAMES,
    ARGUMENTS,
    st.lists(WRAPPERS, max_size=3).map(tuple),
    st.none() | st.just(-1) | st.integers(1, 2**63),
)
HOSTILE = st.sampled_from(
    [math.nan, "\x1b[2J", "a\nb", "\u202e", "$x$", b"bytes", object(), print, "x" * 201, 1j,
     [[[[[[1]]]]]], {"\n": 1}, {1: 2}, list(range(20_000)), np.array([math.nan]), {1, 2}]
)  # fmt: skip


@pytest.mark.situation("right")
@examples(100)
@given(spec=SPECS)
def test_a_spec_comes_back_from_yaml_and_json(spec: EnvSpec) -> None:
    plain = spec.to_plain()
    assert EnvSpec.from_plain(plain) == spec
    assert EnvSpec.from_plain(json.loads(json.dumps(plain))) == spec
    with TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_text(yaml.safe_dump(plain), encoding="utf-8")
        found = EnvSpec.from_plain(read_yaml(path))
    assert found == spec
    assert found.to_plain() == plain
    assert "\n" not in str(found)


@pytest.mark.situation("right")
@examples(40)
@given(spec=SPECS)
def test_a_spec_is_a_copy(spec: EnvSpec) -> None:
    plain = spec.to_plain()
    for values in (plain["kwargs"], *(w["kwargs"] or {} for w in plain["wrappers"])):
        for name, value in list(values.items()):
            if isinstance(value, list):
                value.append("more")
            values[f"{name}+"] = 0
    plain["wrappers"].append(None)
    assert spec.to_plain() != plain
    assert EnvSpec.from_plain(spec.to_plain()) == spec


@pytest.mark.situation("refused")
@examples(60)
@given(
    value=HOSTILE,
    place=st.sampled_from(["id", "argument", "nested", "name", "wrapper", "of a wrapper"]),
)
def test_hostile_values_are_refused_in_one_line(value: Any, place: str) -> None:
    plain = EnvSpec("A-v0", {}, (WrapperSpec("ClipAction"),)).to_plain()
    wrapper = plain["wrappers"][0]
    match place:
        case "id":
            plain["id"] = value
        case "argument":
            plain["kwargs"]["a"] = value
        case "nested":
            plain["kwargs"]["a"] = {"b": [value]}
        case "name":
            plain["kwargs"] = {value: 1} if value.__hash__ else value
        case "wrapper":
            wrapper["name"] = value
        case "of a wrapper":
            wrapper["kwargs"] = {"a": value}
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$"):
        EnvSpec.from_plain(plain)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.situation("refused")
@examples(100)
@given(
    change=st.dictionaries(
        st.sampled_from(["id", "kwargs", "wrappers", "additional_wrappers", "max_episode_steps"]),
        JUNK,
    )
    | JUNK
)
def test_any_json_is_a_spec_or_refused_in_one_line(change: Any) -> None:
    """Of this package and of gymnasium; nothing else is raised."""
    given = EnvSpec("A-v0", {"a": 1}, (WrapperSpec("ClipAction"),)).to_plain()
    given = given | change if isinstance(change, Mapping) else change
    for read in (EnvSpec.from_plain, lambda v: EnvSpec.from_gymnasium(json.dumps(v))):
        with contextlib.suppress(ValueError):
            spec = read(given)
            assert EnvSpec.from_plain(spec.to_plain()) == spec
            assert str(spec).isprintable()
            continue
        with pytest.raises(ValueError, match=r"^[^\n]{1,300}$"):
            read(given)
