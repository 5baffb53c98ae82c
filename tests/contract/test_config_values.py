"""Settings of any values: taken, or refused with every problem; never anything else."""

import tomllib
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetherflow_hooks.config import load, render
from aetherflow_hooks.errors import ConfigInvalid
from tests.contract.test_config import every_field

names = st.sampled_from([name for name, _ in every_field()] + ["x", "pace", "pace.x", "database"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.dictionaries(names, anything, max_size=4))
def test_whatever_is_given_is_taken_or_refused_with_its_problems(found: dict[str, Any]) -> None:
    values: dict[str, Any] = {}
    for path, value in found.items():
        section, _, name = path.partition(".")
        if not name:
            values[section] = value
        elif isinstance(values.setdefault(section, {}), dict):
            values[section][name] = value
    try:
        taken = load(environment={}, given=values)
    except ConfigInvalid as invalid:
        assert invalid.problems
        return
    again = tomllib.loads(render(taken))
    assert load(environment={}, given=again) == taken


@given(st.dictionaries(names, st.text(st.characters(exclude_characters="\0")), max_size=4))
def test_whatever_the_environment_holds_is_taken_or_refused(found: dict[str, str]) -> None:
    environment = {
        f"AETHERFLOW_HOOKS_{path.upper().replace('.', '__')}": text for path, text in found.items()
    }
    try:
        load(environment=environment)
    except ConfigInvalid as invalid:
        assert invalid.problems


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_is_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "hooks.toml"
    file.write_bytes(content)
    try:
        load(file, environment={})
    except ConfigInvalid as invalid:
        assert str(file) in str(invalid)
