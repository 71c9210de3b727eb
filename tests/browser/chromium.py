"""A headless Chromium of our own, driven by the DevTools protocol over two pipes: only Debian's chromium is needed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
ANSWER_SECONDS = 90


class Chromium:
    """One browser with one page. A browser that is missing, or says nothing in time, is a failure."""

    def __init__(self, profile: Path) -> None:
        ours, its = os.pipe(), os.pipe()  # what it reads (its descriptor 3), and what it writes (4)
        flags = (
            "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --remote-debugging-pipe"
        )
        # The shell puts the pipes where Chromium looks for them: pass_fds keeps the numbers as they are.
        script = f'exec {PROGRAM} {flags} --user-data-dir="$1" about:blank 3<&{ours[0]} 4>&{its[1]}'
        with (profile.parent / "chromium.log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", script, "bash", profile], pass_fds=(ours[0], its[1]), stdout=log, stderr=log
            )
        os.close(ours[0])
        os.close(its[1])
        self._write, self._read = ours[1], its[0]
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """End the browser."""
        session, self._session = self._session, ""
        try:
            self.call("Browser.close")
            self._process.wait(ANSWER_SECONDS)
        finally:
            self._session = session
            self._process.kill()
            os.close(self._write)
            os.close(self._read)

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium has ended (is the Debian package installed? see tools/install-system test)"
            self._rest += data
        first, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(first)
        if "method" in message:
            self.events.append(message)
        return message

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + ANSWER_SECONDS
        while (answer := self._message(deadline)).get("id") != number:
            continue
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: dict[str, Any] = answer["result"]
        return result

    def open(self, url: str) -> None:
        """Load a page and wait until it is loaded."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._message(deadline)

    def evaluate(self, expression: str) -> Any:
        """What the expression, or the promise it is, comes to."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def apply(self, function: str, *arguments: Any) -> Any:
        """Call a JavaScript function with these arguments; bytes become an Uint8Array."""
        return self.evaluate(
            f"(async () => {{ {DECODE} return await ({function})(...decode({encode(arguments)})); }})()"
        )

    def wait_for(self, expression: str, what: str) -> Any:
        """The first value of the expression that counts as true."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not (value := self.evaluate(f"({expression}) || null")):
            assert time.monotonic() < deadline, f"{what}: {self.evaluate('document.body.innerText')}"
            time.sleep(0.02)
        return value

    def press(self, key: str, text: str = "") -> None:
        """Press a key, as a person without a mouse does."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def choose(self, selector: str, *paths: Path) -> None:
        """Give files to a file input."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.call("DOM.setFileInputFiles", objectId=found["result"]["objectId"], files=[str(path) for path in paths])


DECODE = """
const decode = (value) => Array.isArray(value) ? value.map(decode)
  : value !== null && typeof value === 'object'
    ? ('base64' in value ? Uint8Array.from(atob(value.base64), (char) => char.charCodeAt(0)) : BigInt(value.big)) : value;
"""


class Big(int):
    """A number that JavaScript gets as a BigInt."""


def encode(value: Any) -> str:
    """Arguments as JSON: bytes and big numbers are wrapped."""

    def plain(given: Any) -> Any:
        if isinstance(given, bytes):
            return {"base64": base64.b64encode(given).decode()}
        if isinstance(given, Big):
            return {"big": str(int(given))}
        return [plain(each) for each in given] if isinstance(given, list | tuple) else given

    return json.dumps(plain(value))
