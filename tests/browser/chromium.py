"""A page in Chromium, as the tests of this folder ask it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Browser:
    """A page in Chromium, and what it did: messages on its console, requests that it made."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, scheme: str = "light", scripts: bool = True) -> None:
        """Opens a file with the network cut off, and returns when its charts are drawn, which is a frame after it is
        loaded. ``scripts`` is False where they cannot run. What was logged before is forgotten."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.command("Network.enable")
        self.command(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        self.messages(), self.requests()
        self.driver.get(path.as_uri())
        if scripts:
            self.driver.execute_async_script(
                "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
            )

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
