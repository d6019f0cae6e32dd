"""`python -m tools.demo`: from three YAMLs to answers, with a table of before and after."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from tools.console import StepError, exit_on_failure, say
from tools.demo import ask, tables, timings
from tools.demo.files import held_out_rows, make_files
from tools.demo.follow import until_all_ready, until_ready
from tools.demo.kubectl import Namespace, Object, wait
from tools.paths import LOCAL, REPOSITORY

YAMLS = REPOSITORY / "examples" / "demo"
BASE_JOB, TUNED_JOB, DEPLOYMENT = "python-base", "module-namer", "assistant"
DOCSTRINGS, LABELLED = "docstrings", "modules"
JOB_SECONDS = 900
"""Deadline of one training job; it takes about two minutes on two idle cores."""
QUESTIONS = 3
MIN_QUESTION = 60
"""Characters of a docstring that says enough to be asked about."""


class Demo:
    """One run of the demo in one namespace."""

    def __init__(self, namespace: Namespace, console: Console) -> None:
        """Take where to run and where to draw."""
        self.namespace = namespace
        self.console = console
        self.seconds: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, title: str, thing: str = "", stage: str = "") -> Iterator[None]:
        """Say what begins; remember how long it took."""
        self.console.rule(f"[bold]{title}", align="left")
        started = time.monotonic()
        yield
        if thing:
            self.seconds.setdefault(thing, {})[stage] = round(time.monotonic() - started, 1)

    def run(self) -> Object:
        """Everything, in order; answers what `.local/demo.json` says."""
        with self.step(f"A namespace, {self.namespace.name}, that admits only restricted pods"):
            self._make_namespace()
        with self.step("Docstrings of Python's standard library and a random Llama", "files", "made"):
            make_files(self.namespace)
        with self.step("Three YAMLs: kubectl apply -f examples/demo"):
            for file in sorted(YAMLS.glob("*.yaml")):
                self.namespace.apply(file.read_text())
        with self.step("Two datasets", "datasets", "prepared"):
            until_all_ready(self.namespace, [("dataset", DOCSTRINGS), ("dataset", LABELLED)], 300, self.console)
        with self.step("Two jobs, one on the other's result", "jobs", "all"):
            _, tuned = until_all_ready(
                self.namespace, [("finetunejob", BASE_JOB), ("finetunejob", TUNED_JOB)], 2 * JOB_SECONDS, self.console
            )
        with self.step("A deployment that proves the adapter before it is ready", DEPLOYMENT, "adapter made to proven"):
            until_ready(self.namespace, "modeldeployment", DEPLOYMENT, 300, self.console)
        return self._show(tuned)

    def _make_namespace(self) -> None:
        wait("the deletion of an earlier demo", self._is_not_being_deleted, 120)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        metadata = {"name": self.namespace.name, "labels": labels}
        self.namespace.apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
        wait("the default service account", lambda: self.namespace.get("serviceaccount", "default"), 60)
        if self.namespace.get("finetunejob", TUNED_JOB):
            say("  an earlier demo is here: what has succeeded is not trained again")

    def _is_not_being_deleted(self) -> bool | None:
        found = self.namespace.get("namespace", self.namespace.name)
        return None if found and found["metadata"].get("deletionTimestamp") else True

    def _show(self, tuned: Object) -> Object:
        rows = held_out_rows(self.namespace, self._get("dataset", LABELLED)["status"]["revision"])
        majority = max(Counter(row["label"] for row in rows).values()) / len(rows)
        self.console.rule("[bold]Before and after", align="left")
        self.console.print(tables.accuracy_table(tuned, majority))
        questions = questions_from(rows)
        with ask.address(self.namespace, DEPLOYMENT) as url:
            self.seconds[DEPLOYMENT]["question to first token"] = ask.seconds_to_first_token(
                url, TUNED_JOB, questions[0][0]
            )
            started = time.monotonic()
            answers = ask.ask(url, DEPLOYMENT, TUNED_JOB, questions)
            self.seconds[DEPLOYMENT][f"{2 * len(questions)} answers"] = round(time.monotonic() - started, 1)
            self.console.print(tables.answers_table(answers))
            more = ask.curl_line(url, TUNED_JOB, questions[0][0])
        self._add_job_times()
        self.console.print(tables.time_table(self.seconds))
        self._say_how_to_go_on(more)
        return self._record(tuned, majority)

    def _add_job_times(self) -> None:
        base, tuned = (self._get("finetunejob", name) for name in (BASE_JOB, TUNED_JOB))
        docstrings, labelled = (self._get("dataset", name) for name in (DOCSTRINGS, LABELLED))
        self.seconds[BASE_JOB] = timings.of_job(self.namespace, base, [docstrings])
        self.seconds[TUNED_JOB] = timings.of_job(self.namespace, tuned, [labelled, base])

    def _get(self, kind: str, name: str) -> Object:
        item = self.namespace.get(kind, name)
        if item is None:
            raise StepError(f"{kind} {name} was deleted while the demo ran; run `make demo` again")
        return item

    def _say_how_to_go_on(self, curl: str) -> None:
        namespace = self.namespace.name
        self.console.rule("[bold]Go on", align="left")
        say(f"  look:       kubectl -n {namespace} get datasets,finetunejobs,modeldeployments")
        say(f"              kubectl -n {namespace} describe finetunejob {TUNED_JOB}")
        say(f"  ask more:   {curl}")
        say(f"  clean up:   kubectl delete namespace {namespace}; make cluster-down")
        say("  kubectl is .local/bin/kubectl, with KUBECONFIG=.local/kubeconfig")

    def _record(self, tuned: Object, majority: float) -> Object:
        found = tables.scores(tuned)
        return {
            "accuracies": {system: score["value"] for system, score in found.items()},
            "majority": round(majority, 4),
            "rows": found["Tuned"]["rows"],
            "seconds": self.seconds,
            "artifact": tuned["status"]["artifact"]["digest"],
        }


def questions_from(rows: list[Object]) -> list[tuple[str, str]]:
    """Held-out docstrings from different modules, short enough to be read."""
    chosen: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (len(row["text"]) < MIN_QUESTION, len(row["text"]), row["text"])):
        chosen.setdefault(row["label"], row["text"])
    return [(text, label) for label, text in list(chosen.items())[:QUESTIONS]]


def main() -> None:
    """Run it, and write `.local/demo.json`."""
    started = time.monotonic()
    namespace = Namespace(os.environ.get("DEMO_NAMESPACE", "demo"))
    demo = Demo(namespace, Console(width=None if os.isatty(1) else 110))
    record = demo.run()
    record["seconds"]["demo"] = {"all": round(time.monotonic() - started, 1)}
    file = LOCAL / "demo.json"
    file.write_text(json.dumps(record, indent=2) + "\n")
    say(f"\n  {record['seconds']['demo']['all']:.0f} s; figures in {file.relative_to(REPOSITORY)}")


if __name__ == "__main__":
    exit_on_failure(main)
