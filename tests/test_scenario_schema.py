"""The JSON schema and the files that name it; what importing the package costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from scenario_text import SMALLEST, put

import loadgen.scenario
from loadgen.scenario import json_schema, load
from loadgen.scenario.kinds import Words
from loadgen.scenario.problems import MAPPINGS, READ_BEFORE, keys_of

ROOT = Path(__file__).parent.parent
SCENARIOS = sorted(path for path in (ROOT / "scenarios").rglob("*.yaml"))


def test_the_schema_that_is_shipped_is_current() -> None:
    shipped = (ROOT / "schemas" / "scenario-v1.json").read_text(encoding="utf-8")
    assert shipped == json_schema(), "run: loadgen schema > schemas/scenario-v1.json"


def test_the_schema_knows_every_key_of_every_model() -> None:
    schema = json.loads(json_schema())
    assert set(schema["properties"]) == set(keys_of(()))
    for path, known in MAPPINGS.items():
        if path:
            assert set(schema["$defs"][known.__name__]["properties"]) == set(keys_of(path))
    assert set(schema["$defs"]["Profile"]["properties"]) == set(keys_of(())) - {"schema", "name", *READ_BEFORE} | {
        "when"
    }


def test_every_model_has_its_place_so_that_unknown_keys_get_a_proposal() -> None:
    assert set(MAPPINGS.values()) == set(Words.__subclasses__())


def test_every_key_says_what_it_is() -> None:
    for known in MAPPINGS.values():
        for name, field in known.model_fields.items():
            own_docstring = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert field.description or own_docstring, f"{known.__name__}.{name}"


def test_the_schema_requires_only_its_version_since_files_may_state_differences() -> None:
    def requirements(node: Any) -> list[Any]:
        if isinstance(node, dict):
            own = [node["required"]] if isinstance(node.get("required"), list) else []
            return own + [item for value in node.values() for item in requirements(value)]
        return [item for value in node for item in requirements(value)] if isinstance(node, list) else []

    assert requirements(json.loads(json_schema())) == [["schema"]]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.name)
def test_a_shipped_scenario_names_the_schema_for_editors_and_loads(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    schema = Path(os.path.relpath(ROOT / "schemas" / "scenario-v1.json", path.parent))
    assert first == f"# yaml-language-server: $schema={schema.as_posix()}"
    assert load(path, env={}).scenario.name == path.stem


def test_the_package_is_imported_without_pydantic_and_yaml(tmp_path: Path) -> None:
    script = put(
        tmp_path,
        "import sys, loadgen.scenario\n"
        "assert not {'pydantic', 'ruamel.yaml'} & set(sys.modules)\n"
        "from loadgen.scenario import Scenario, load\n"
        "assert 'pydantic' in sys.modules and callable(load)\n"
        "assert not {'ruamel.yaml', 'numpy', 'scipy'} & set(sys.modules)\n",
        "light.py",
    )
    subprocess.run([sys.executable, str(script)], check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_every_public_name_is_there_and_no_other() -> None:
    for name in loadgen.scenario.__all__:
        assert getattr(loadgen.scenario, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = loadgen.scenario.nothing


def test_the_flags_of_the_schema_line_are_a_comment_to_the_reader(tmp_path: Path) -> None:
    text = "# yaml-language-server: $schema=../schemas/scenario-v1.json\n" + SMALLEST
    assert load(put(tmp_path, text)).scenario.load.concurrency == 2
