"""The API client against a real HTTP server that says what each test wants."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from finetune_operator.cluster import RESOURCES, ApiServer, Head
from finetune_operator.errors import AlreadyExists, ClusterError, Conflict, Denied, Expired, NotFound, Unavailable
from finetune_operator.manifests.naming import Manifest
from tests.unit.operator_runtime.fakes import NAMESPACE, make_job, make_resource

Answer = Callable[[web.Request], Awaitable[web.Response]]


class Server:
    """Answers requests in turn, the last answer for ever, and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, Any]] = [(200, {})]
        self.headers: dict[str, str] = {}
        self.requests: list[tuple[str, str, Any]] = []
        self.tokens: list[str] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.requests.append((request.method, request.path_qs, json.loads(text) if text else None))
        self.tokens.append(request.headers.get("Authorization", ""))
        status, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=self.headers)
        return web.json_response(body, status=status, headers=self.headers)


class Connection:
    def __init__(self, server: str, token: str) -> None:
        self.server = server
        self.token = token

    def as_ssl_context(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def as_http_headers(self) -> dict[str, str]:
        return {"Authorization": self.token}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[ApiServer]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", server.handle)
    listening = TestServer(application)
    await listening.start_server()
    logins = iter("abcdef")
    client = ApiServer(lambda: Connection(str(listening.make_url("")), next(logins)))
    yield client
    await client.close()
    await listening.close()


JOB = make_job(make_resource(metadata={"uid": "owner"}), metadata={"uid": "job"})


def failure(reason: str, message: str = "because") -> Manifest:
    return {"kind": "Status", "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (404, failure("NotFound", "jobs not found"), NotFound, "jobs not found"),
        (409, failure("Conflict"), Conflict, "because"),
        (409, failure("AlreadyExists"), AlreadyExists, "because"),
        (410, failure("Expired"), Expired, "because"),
        (403, failure("Forbidden", "exceeded quota"), Denied, "exceeded quota"),
        (422, failure("Invalid", "spec.x: bad"), Denied, "spec.x: bad"),
        (413, "too large", Denied, "too large"),
        (500, failure("InternalError"), Unavailable, "because"),
        (500, failure("InternalError", 'failed calling webhook "mjob.kb.io": refused'), Denied, "mjob.kb.io"),
        (503, "no backend", Unavailable, "no backend"),
        (504, failure("Timeout"), Unavailable, "because"),
        (200, "<html>", Unavailable, "not JSON"),
    ],
)
async def test_answers_become_errors(
    client: ApiServer, server: Server, status: int, body: Any, error: type[ClusterError], message: str
) -> None:
    server.answers = [(status, body)]
    with pytest.raises(error, match=message) as caught:
        await client.get("Job", NAMESPACE, "x")
    assert type(caught.value) is error


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = ApiServer(lambda: Connection("http://127.0.0.1:1", "t"))
    with pytest.raises(Unavailable):
        await client.get("Job", NAMESPACE, "x")
    await client.close()


async def test_without_credentials_it_is_unavailable() -> None:
    def nothing() -> Connection:
        raise ValueError("neither a service account nor a kubeconfig")

    with pytest.raises(Unavailable, match="neither"):
        await ApiServer(nothing).get("Job", NAMESPACE, "x")


async def test_a_refused_token_is_read_again_once(client: ApiServer, server: Server) -> None:
    server.answers = [(401, failure("Unauthorized")), (200, JOB)]
    assert await client.get("Job", NAMESPACE, "x") == JOB
    assert server.tokens == ["a", "b"]
    server.answers = [(401, failure("Unauthorized"))]
    with pytest.raises(Unavailable):
        await client.get("Job", NAMESPACE, "x")
    assert server.tokens == ["a", "b", "b", "c"]


async def test_a_busy_server_is_asked_again_when_it_says(
    client: ApiServer, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    server.headers = {"Retry-After": "3"}
    server.answers = [(429, failure("TooManyRequests")), (200, JOB)]
    assert await client.get("Job", NAMESPACE, "x") == JOB
    assert pauses == [3.0]
    server.answers = [(429, failure("TooManyRequests"))]
    with pytest.raises(Unavailable):
        await client.get("Job", NAMESPACE, "x")


async def test_lists_come_in_pages_of_our_children(client: ApiServer, server: Server) -> None:
    bare = {"metadata": {"name": "a"}}
    first = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [dict(bare)]}
    last = {"metadata": {"resourceVersion": "7"}, "items": [dict(bare)]}
    server.answers = [(200, first), (200, last)]
    pages = [(page.resource_version, list(page.items)) async for page in client.list("Job", None)]
    assert pages == [("7", [{**bare, "apiVersion": "batch/v1", "kind": "Job"}])] * 2
    selector = "labelSelector=app.kubernetes.io/managed-by%3Dfinetune-operator"
    assert [path for _, path, _ in server.requests] == [
        f"/apis/batch/v1/jobs?limit=500&{selector}",
        f"/apis/batch/v1/jobs?limit=500&{selector}&continue=more",
    ]


async def test_the_next_page_is_asked_for_while_one_is_worked_on(client: ApiServer, server: Server) -> None:
    page = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": []}
    server.answers = [(200, page)]
    pages = aiter(client.list("Job", None))
    await anext(pages)
    async with asyncio.timeout(5):
        while len(server.requests) < 2:  # noqa: ASYNC110 - the server sets no event
            await asyncio.sleep(0.001)
    await pages.aclose()  # type: ignore[attr-defined]
    assert len(server.requests) == 2


async def test_a_list_that_is_cut_is_unavailable(client: ApiServer, server: Server) -> None:
    page = json.dumps({"metadata": {"resourceVersion": "7"}, "items": [JOB, JOB]})
    server.answers = [(200, page[:-30])]
    with pytest.raises(Unavailable, match="not JSON"):
        [page async for page in client.list("Job", None)]


async def test_of_heads_only_which_object_they_are_is_read(client: ApiServer, server: Server) -> None:
    metadata = {"name": "a", "namespace": "b", "uid": "c", "resourceVersion": "9", "managedFields": [{"manager": "x"}]}
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": [{"kind": "P", "metadata": metadata}]})]
    assert [page.items async for page in client.heads("Dataset", None)] == [[Head("c", "b", "a", 9)]]


async def test_an_empty_list_of_metadata_is_null(client: ApiServer, server: Server) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": None})]
    assert [page.items async for page in client.heads("Dataset", None)] == [[]]


async def test_our_own_kinds_are_listed_without_a_label(client: ApiServer, server: Server) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "7"}, "items": []})]
    assert [list(page.items) async for page in client.list("Dataset", NAMESPACE)] == [[]]
    assert server.requests[0][1] == f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/datasets?limit=500"


async def test_an_object_that_exists_and_is_ours_counts_as_created(client: ApiServer, server: Server) -> None:
    server.answers = [(409, failure("AlreadyExists")), (200, JOB)]
    assert await client.create(JOB) == JOB


@pytest.mark.parametrize(
    "found",
    [
        make_job(make_resource(metadata={"uid": "another"})),
        make_job(make_resource(metadata={"uid": "owner"}), metadata={"deletionTimestamp": "2026-11-21T00:00:00Z"}),
    ],
    ids=["of another owner", "being deleted"],
)
async def test_an_object_that_exists_and_is_not_ours_is_a_conflict(
    client: ApiServer, server: Server, found: Manifest
) -> None:
    server.answers = [(409, failure("AlreadyExists")), (200, found)]
    with pytest.raises(Conflict):
        await client.create(JOB)


async def test_a_delete_names_the_very_object_and_gone_is_deleted(client: ApiServer, server: Server) -> None:
    server.answers = [(404, failure("NotFound"))]
    await client.delete("Job", NAMESPACE, "x", "uid-1")
    ((method, path, body),) = server.requests
    assert (method, path) == ("DELETE", f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs/x")
    assert body == {"propagationPolicy": "Background", "preconditions": {"uid": "uid-1"}}


async def test_writes_name_us_as_their_manager(client: ApiServer, server: Server) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": NAMESPACE}}
    await client.apply(service)
    await client.replace_status(make_resource())
    assert [(method, path) for method, path, _ in server.requests] == [
        ("PATCH", f"/api/v1/namespaces/{NAMESPACE}/services/s?fieldManager=finetune-operator&force=true"),
        (
            "PUT",
            f"/apis/finetune.dev/v1alpha1/namespaces/{NAMESPACE}/finetunejobs/tune/status?fieldManager=finetune-operator",
        ),
    ]


async def test_an_event_that_exists_becomes_a_series(client: ApiServer, server: Server) -> None:
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": NAMESPACE},
        "eventTime": "2026-11-21T00:00:00.000000Z",
    }
    server.answers = [(409, failure("AlreadyExists")), (200, event)]
    await client.record(event, 1)
    assert server.requests[1][2] == {"series": {"count": 2, "lastObservedTime": event["eventTime"]}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [((404, failure("NotFound")), set()), ((200, {"resources": [{"kind": "Dataset"}]}), {"Dataset"})],
)
async def test_discovery_says_which_kinds_there_are(
    client: ApiServer, server: Server, answer: tuple[int, Any], expected: set[str]
) -> None:
    server.answers = [answer]
    assert await client.served_kinds() == expected


async def test_what_is_not_in_the_table_is_not_asked(client: ApiServer, server: Server) -> None:
    with pytest.raises(AssertionError, match="RBAC"):
        await client.delete("PersistentVolumeClaim", NAMESPACE, "finetune-artifacts", "uid")
    assert server.requests == []


def test_secrets_are_not_in_the_table() -> None:
    assert "secrets" not in {resource.plural for resource in RESOURCES.values()}


async def test_workloads_are_found_by_the_uids_of_their_jobs(client: ApiServer, server: Server) -> None:
    server.answers = [(200, {"items": [{"metadata": {"name": "w"}}]})]
    (found,) = await client.workloads(NAMESPACE, ["b", "a"])
    assert found["metadata"]["name"] == "w"
    ((method, path, _),) = server.requests
    assert method == "GET"
    assert path.startswith(f"/apis/kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/workloads?labelSelector=")
    assert path.endswith("kueue.x-k8s.io/job-uid+in+(a,b)")


@pytest.mark.parametrize("items", [None, []])
async def test_an_empty_queue_has_no_items(client: ApiServer, server: Server, items: Any) -> None:
    server.answers = [(200, {"items": items})]
    assert await client.pending_workloads(NAMESPACE, "team") == ()
    path = f"/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/{NAMESPACE}/localqueues/team/pendingworkloads"
    assert server.requests[0][1] == path


async def test_a_deletion_in_the_foreground_waits_for_dependents(client: ApiServer, server: Server) -> None:
    await client.delete("Job", NAMESPACE, "x", "uid-1", foreground=True)
    assert server.requests[0][2] == {"propagationPolicy": "Foreground", "preconditions": {"uid": "uid-1"}}
