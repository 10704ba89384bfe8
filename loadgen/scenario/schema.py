"""The JSON schema of scenario files, for editors: ``loadgen schema`` writes it, ``schemas/`` holds a copy.

It is made from the models. It says less than they do: no key is required but ``schema``, because a file may extend
another one, a profile states only differences, and a matrix may supply a value.
"""

from __future__ import annotations

import json
from typing import Any

from loadgen.scenario.model import Scenario, When


def json_schema() -> str:
    """The schema as JSON text with a newline at its end."""
    schema = Scenario.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs")
    definitions["When"] = When.model_json_schema()
    inherited = {key: value for key, value in schema["properties"].items() if key not in ("schema", "name")}
    definitions["Profile"] = {
        "description": "Differences from the scenario, merged over it where the machine has what `when` asks for.",
        "type": "object",
        "properties": {"when": {"$ref": "#/$defs/When"}, **inherited},
        "additionalProperties": False,
    }
    schema["properties"] |= {
        "extends": {"type": "string", "description": "a scenario file that this one is merged over"},
        "profiles": {
            "type": "object",
            "description": "variants by machine; --profile NAME chooses one",
            "additionalProperties": {"$ref": "#/$defs/Profile"},
        },
    }
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **_trimmed(schema)}
    whole |= {"title": "loadgen scenario", "required": ["schema"], "$defs": _trimmed(definitions, names=True)}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _trimmed(schema: Any, names: bool = False) -> Any:
    """The schema without titles and required keys; ``names`` is True for a mapping of names to schemas."""
    if isinstance(schema, list):
        return [_trimmed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if names or key not in ("title", "required")}
    if not names and isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split())  # docstrings are wrapped
    return {key: _trimmed(value, names=key in ("properties", "$defs") and not names) for key, value in kept.items()}
