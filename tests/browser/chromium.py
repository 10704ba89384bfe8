"""A page in Chromium, as the tests of this folder ask it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Browser:
    """A page in Chromium, and what it did: messages on its console, requests that it made."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, scheme: str = "light") -> None:
        """Opens a file with the network cut off. What was logged before is forgotten."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.command("Network.enable")
        self.command(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        self.messages(), self.requests()
        self.driver.get(path.as_uri())

    def command(self, name: str, **words: Any) -> Any:
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, words)

    def run(self, script: str, *words: Any) -> Any:
        """The value of a JavaScript function's body."""
        return self.driver.execute_script(script, *words)

    def messages(self) -> list[str]:
        """What stands on the console since the last call, violations of the Content-Security-Policy among it."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The URLs that were asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def named(self, *roles: str, until: Mapping[str, int], within_s: float = 30.0) -> dict[str, list[str]]:
        """The names of what has these roles, as a screen reader is told them. Chromium makes that tree while the page
        is there already, so it is asked again ``until`` it has so many of a role, or the time is up."""
        deadline = time.monotonic() + within_s
        while True:
            found: dict[str, list[str]] = {role: [] for role in roles}
            for node in self.command("Accessibility.getFullAXTree")["nodes"]:
                if (role := node.get("role", {}).get("value")) in found:
                    found[role].append(node["name"]["value"].strip())
            if all(len(found[role]) == n for role, n in until.items()) or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def choose(self, cell: str) -> None:
        """Chooses a cell in the list of those whose inside can be seen."""
        self.run(
            "const list = document.getElementById('which'); list.value = arguments[0];"
            "list.dispatchEvent(new Event('change'))",
            cell,
        )

    def chart(self, name: str) -> Any:
        """The option that a chart was drawn with, as ECharts holds it; None for one that is not drawn."""
        return self.run(
            "const chart = echarts.getInstanceByDom(document.querySelector(`[data-chart='${arguments[0]}']`));"
            "return chart ? JSON.parse(JSON.stringify(chart.getOption())) : null",
            name,
        )
