"""`chat` against an HTTP server that streams as OpenAI does, behind the API server's proxy path."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from finetune_cli import __main__ as cli
from finetune_cli.conversation import words_of
from finetune_cli.errors import CliError
from finetune_cli.facts import Object
from tests import factories
from tests.unit.cli.apiserver import ApiServer

SERVING: Object = {
    "readyReplicas": 1,
    "adapters": [{"name": "triage", "state": "Serving"}, {"name": "new", "state": "Loading"}],
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["chat", "support", *arguments])


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}).encode() + b"\n\n"


def echo(body: Object) -> Iterator[bytes]:
    """Each model answers with its name and the number of messages, a few bytes at a time."""
    words = (
        b"".join(event(word) for word in (body["model"], " heard ", str(len(body["messages"])))) + b"data: [DONE]\n\n"
    )
    for at in range(0, len(words), 7):
        yield words[at : at + 7]


@pytest.fixture(autouse=True)
def _served(api: ApiServer) -> None:
    api.add("modeldeployments", factories.make_deployment(metadata={"namespace": "team"}, status=SERVING))
    api.chat = echo


def test_base_and_adapters_answer_one_below_the_other_in_a_pipe(api: ApiServer) -> None:
    result = run("-m", "hi")
    assert (result.exit_code, result.stdout) == (0, "support: support heard 1\ntriage: triage heard 1\n")
    paths = {path for _, path, _, body in api.asked if body}
    assert paths == {"/api/v1/namespaces/team/services/http:support:8080/proxy/v1/chat/completions"}


def test_one_model_alone_prints_its_answer_alone() -> None:
    assert run("-m", "hi", "--model", "triage").stdout == "triage heard 1\n"


def test_each_model_remembers_its_own_answers(api: ApiServer) -> None:
    found = json.loads(run("-m", "hi", "-m", "and?", "--system", "Be kind", "-o", "json").stdout)
    assert [(one["message"], one["model"], one["answer"]) for one in found] == [
        ("hi", "support", "support heard 2"),
        ("hi", "triage", "triage heard 2"),
        ("and?", "support", "support heard 4"),
        ("and?", "triage", "triage heard 4"),
    ]
    last = [body for _, _, _, body in api.asked if body and body["model"] == "triage"][-1]
    assert [one["role"] for one in last["messages"]] == ["system", "user", "assistant", "user"]
    assert last["messages"][2]["content"] == "triage heard 2"


def test_settings_are_passed_on(api: ApiServer) -> None:
    run("-m", "hi", "--max-tokens", "7", "--temperature", "0.5")
    body = next(body for _, _, _, body in api.asked if body)
    assert (body["max_tokens"], body["temperature"], body["stream"]) == (7, 0.5, True)


def test_a_model_that_is_not_served(api: ApiServer) -> None:
    result = run("-m", "hi", "--model", "new")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "support does not serve 'new' now; it serves support, triage" in result.stderr
    assert not any(body for _, _, _, body in api.asked)


def test_a_deployment_that_is_not_ready_says_why(api: ApiServer) -> None:
    ready = {"type": "Ready", "status": "False", "reason": "AdapterPending", "message": "triage has no artifact yet"}
    api.add(
        "modeldeployments", factories.make_deployment(metadata={"namespace": "team"}, status={"conditions": [ready]})
    )
    assert "support serves nobody yet: triage has no artifact yet" in run("-m", "hi").stderr


def test_a_script_must_say_what_it_wants() -> None:
    result = run()
    assert result.exit_code == 2
    assert "give --message" in result.stderr


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b'data: {"error": {"message": "CUDA is away"}}\n\n', "the model server says: CUDA is away"),
        (event("half"), "the answer broke off"),
        (b"data: <html>\n\n", "does not speak OpenAI's protocol"),
    ],
    ids=["an error in the stream", "cut off", "something else"],
)
def test_an_answer_that_goes_wrong_ends_with_1(api: ApiServer, answer: bytes, words: str) -> None:
    api.chat = lambda _body: iter([answer])
    result = run("-m", "hi", "--model", "triage")
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_on_a_terminal_one_talks_until_an_empty_line(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "finetune_cli", "chat", "support"]
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "kubeconfig")}
    with subprocess.Popen(command, env=environment, stdin=theirs, stdout=subprocess.PIPE, text=True) as process:
        os.close(theirs)
        os.write(ours, b"hi\nand?\n/reset\nagain\n\n")
        said, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0
    for words in ("triage heard 1", "support heard 3", "triage heard 3"):
        assert words in said
    assert said.count("triage heard 1") == 2, "after /reset it has heard nothing"


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_events_may_be_cut_anywhere(size: int) -> None:
    stream = event("Grüße ") + b": a comment\n\n" + event("an\nalle") + b"data: [DONE]\n\n"
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert "".join(words_of(iter(pieces))) == "Grüße an\nalle"


def test_an_answer_without_an_end_is_no_answer() -> None:
    with pytest.raises(CliError, match="broke off"):
        list(words_of(iter([event("half")])))
