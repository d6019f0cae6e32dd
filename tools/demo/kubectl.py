"""kubectl as a function: JSON in, JSON out."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tools.console import StepError, output_of, say

Object = dict[str, Any]
Value = TypeVar("Value")

POLL_SECONDS = 1.0
SIGN_OF_LIFE_SECONDS = 8.0


class Namespace:
    """One namespace, through the kubectl and kubeconfig of the environment."""

    def __init__(self, name: str) -> None:
        """Take its name; it need not exist yet."""
        self.name = name

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """The command's output; raises StepError with its words when it fails."""
        return output_of(["kubectl", f"--namespace={self.name}", *arguments], stdin=stdin)

    def apply(self, text: str) -> None:
        """Apply YAML or JSON, and print what kubectl says."""
        for line in self.kubectl("apply", "-f", "-", stdin=text).splitlines():
            say(f"  {line}")

    def apply_objects(self, *objects: Object) -> None:
        """Apply several objects at once."""
        self.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind: str, name: str) -> Object | None:
        """One object; None if there is none."""
        text = self.kubectl("get", kind, name, "--output=json", "--ignore-not-found")
        return json.loads(text) if text else None

    def find(self, kind: str, selector: str) -> list[Object]:
        """Objects by label."""
        return list(json.loads(self.kubectl("get", kind, f"--selector={selector}", "--output=json"))["items"])

    def last_words(self, selector: str, lines: int = 15) -> str:
        """The last lines that each container of the newest of some pods has written; empty without a pod."""
        pods = self.find("pods", selector)
        if not pods:
            return ""
        newest = max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))["metadata"]["name"]
        command = ["kubectl", f"--namespace={self.name}", "logs", newest, f"--tail={lines}", "--all-containers"]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return "\n".join(["", f"  last lines of pod {newest}:", *(f"    {line}" for line in said.splitlines())])


def condition(item: Object | None, type_: str) -> Object:
    """A condition of an object; empty if it has none of that type."""
    conditions = ((item or {}).get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == type_), {})


def holds(item: Object | None, type_: str) -> bool:
    """Whether a condition is True."""
    return condition(item, type_).get("status") == "True"


def wait(what: str, look: Callable[[], Value | None], seconds: float) -> Value:
    """Look until there is an answer, with a sign of life; raises StepError at the deadline."""
    started = spoke = time.monotonic()
    while (answer := look()) is None:
        now = time.monotonic()
        if now - started > seconds:
            raise StepError(f"{what}: not within {seconds:.0f} s")
        if now - spoke > SIGN_OF_LIFE_SECONDS:
            say(f"  ... {what} ({now - started:.0f} s)")
            spoke = now
        time.sleep(POLL_SECONDS)
    return answer
