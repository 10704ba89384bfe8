"""The scenario language: a YAML file becomes a validated, frozen `Scenario` and its cells."""
