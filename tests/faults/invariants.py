"""What must hold in every namespace, whatever was injected: checked over all that ever happened there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from itertools import pairwise
from typing import Any

from finetune_operator.cluster import OWN_KINDS
from finetune_operator.manifests.naming import LABEL_KIND, LABEL_NAME, LABEL_ROLE, LABEL_RUN
from finetune_operator.reconcile.draft import HISTORY
from tests.faults.api import Change, History, Object
from tests.faults.kubelet import Store


def broken(history: History, store: Store, moved: Collection[str] = ()) -> list[str]:
    """Every promise that was not kept, one line each.

    Conditions of the kinds in `moved` may come back to what they said, because what they tell of did.
    """
    calm = [change for change in history.changes if change.kind not in moved]
    return [
        *_two_live_attempts(history.changes),
        *_trained_again(history.changes, store),
        *_two_live_pods(history.changes),
        *_answered_again(history.changes, store),
        *_forgotten(history.changes),
        *_fallen_generations(history.changes),
        *_wrong_owners(history.changes),
        *_flapping(calm),
        *_moved_times(calm),
    ]


def _is_attempt(change: Change, *roles: str) -> bool:
    return change.kind == "Job" and _labels(change.item).get(LABEL_ROLE) in roles


def _labels(item: Object) -> dict[str, str]:
    return dict(item["metadata"].get("labels") or {})


def _has_ended(job: Object) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(entry["type"] in ("Complete", "Failed") and entry["status"] == "True" for entry in conditions)


def _two_live_attempts(changes: list[Change]) -> list[str]:
    found, live = [], defaultdict[tuple[str, ...], set[str]](set)
    for change in changes:
        if not _is_attempt(change, "train", "batch"):
            continue
        run = tuple(_labels(change.item)[name] for name in (LABEL_KIND, LABEL_NAME, LABEL_RUN))
        name = change.item["metadata"]["name"]
        is_over = change.type == "DELETED" or change.item["metadata"].get("deletionTimestamp")
        if is_over or _has_ended(change.item):
            live[run].discard(name)
        else:
            live[run].add(name)
        if len(live[run]) > 1:
            found.append(f"two live attempts of one run: {sorted(live[run])}")
    return found


def _trained_again(changes: list[Change], store: Store) -> list[str]:
    """Neither in the store's books, nor by a Job that is made after the status has told of the success."""
    found = [f"run {key[:12]} was trained {times} times" for key, times in store.trainings.items() if times > 1]
    successes: dict[str, int] = {}
    for change in changes:
        status = change.item.get("status") or {}
        if change.kind == "FineTuneJob":
            for record in status.get("runs") or ():
                if record["outcome"] == "Succeeded":
                    successes.setdefault(record["key"][:16], int(change.item["metadata"]["resourceVersion"]))
    return found + _made_after(changes, "train", successes)


def _made_after(changes: list[Change], role: str, successes: dict[str, int]) -> list[str]:
    """Jobs that were made although the status had told of their run's success, by the run's label."""
    found = []
    for change in changes:
        if change.type != "ADDED" or not _is_attempt(change, role):
            continue
        run, created = _labels(change.item)[LABEL_RUN], int(change.item["metadata"]["resourceVersion"])
        if created > successes.get(run, created):
            found.append(f"{change.item['metadata']['name']} was made after its run had succeeded")
    return found


def _owner(change: Change) -> str:
    return str(change.item["metadata"]["ownerReferences"][0]["uid"])


def _two_live_pods(changes: list[Change]) -> list[str]:
    """A batch has one pod, whatever its runs and attempts; one that was told to go no longer counts.

    What belongs to an object that was deleted is for the garbage collector to stop.
    """
    found, live = [], defaultdict[str, set[str]](set)
    batch_of = {change.item["metadata"]["uid"]: _owner(change) for change in changes if _is_attempt(change, "batch")}
    for change in changes:
        if change.kind != "Pod" or _labels(change.item).get(LABEL_ROLE) != "batch":
            continue
        pods, name = live[batch_of[_owner(change)]], change.item["metadata"]["name"]
        has_ended = (change.item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if has_ended or change.type == "DELETED" or change.item["metadata"].get("deletionTimestamp"):
            pods.discard(name)
        else:
            pods.add(name)
        if len(pods) > 1:
            found.append(f"two live pods of one batch: {sorted(pods)}")
    return found


def _answered_again(changes: list[Change], store: Store) -> list[str]:
    """As `_trained_again`, of batches."""
    found = [f"batch {key[:12]} was answered {times} times" for key, times in store.answerings.items() if times > 1]
    successes: dict[str, int] = {}
    for change in changes:
        output = (change.item.get("status") or {}).get("output")
        if change.kind == "BatchInference" and output:
            successes.setdefault(output["run"][:16], int(change.item["metadata"]["resourceVersion"]))
    return found + _made_after(changes, "batch", successes)


def _forgotten(changes: list[Change]) -> list[str]:
    """What a batch's status has told of a run's answers, or of how an attempt ended, stands."""
    found, told = [], dict[tuple[str, ...], Object]()
    for change in changes:
        status = change.item.get("status") or {}
        if change.kind != "BatchInference" or change.type == "DELETED":
            continue
        uid = change.item["metadata"]["uid"]
        said: dict[tuple[str, ...], Object] = {
            (uid, "attempt", each["run"], str(each["number"])): each for each in status.get("attempts") or ()
        }
        if output := status.get("output"):
            said[uid, "output", output["run"]] = output
        elif any(known[:2] == (uid, "output") for known in told):
            found.append("a batch's answers are gone from its status")
        found += [
            f"{key[1:]} was told otherwise" for key, value in said.items() if told.setdefault(key, value) != value
        ]
        ends = {key for key in told if key[:2] == (uid, "attempt")}
        if len(ends) <= HISTORY and not ends <= set(said):
            found.append(f"attempts of a batch are forgotten: {sorted(ends - set(said))}")
    return found


def _fallen_generations(changes: list[Change]) -> list[str]:
    found, last = [], dict[str, int]()
    for change in changes:
        observed = (change.item.get("status") or {}).get("observedGeneration")
        if change.kind in OWN_KINDS and observed is not None:
            uid = change.item["metadata"]["uid"]
            if observed < last.get(uid, 0):
                found.append(f"observedGeneration of {change.kind} fell from {last[uid]} to {observed}")
            last[uid] = observed
    return found


def _wrong_owners(changes: list[Change]) -> list[str]:
    owners = {
        (change.kind, change.item["metadata"]["name"], change.item["metadata"]["uid"])
        for change in changes
        if change.kind in OWN_KINDS
    }
    found = []
    for change in changes:
        labels = _labels(change.item)
        if change.type != "ADDED" or change.kind == "Pod" or LABEL_KIND not in labels:
            continue
        name = change.item["metadata"]["name"]
        references = change.item["metadata"].get("ownerReferences") or ()
        if len(references) != 1:
            found.append(f"{change.kind} {name} has {len(references)} owners")
        for owner in references:
            claimed = (owner["kind"], owner["name"], owner["uid"])
            if claimed not in owners or claimed[:2] != (labels[LABEL_KIND], labels[LABEL_NAME]):
                found.append(f"{change.kind} {name} is owned by {claimed}, which never was")
    return found


def _statuses(changes: list[Change]) -> dict[tuple[Any, ...], list[Object]]:
    """Of each condition, what was said of it one after another, in one epoch: a generation, a run, its attempts."""
    said = defaultdict[tuple[Any, ...], list[Object]](list)
    for change in changes:
        status = change.item.get("status") or {}
        if change.kind not in OWN_KINDS or change.type == "DELETED":
            continue
        # An adapter's new artifact is news for a deployment as an edit is.
        news = [entry.get("digest") for entry in status.get("adapters") or ()]
        run = (status.get("run") or {}).get("number", 0)
        # A batch counts its attempts by the list.
        ended = status.get("attemptsTotal", len(status.get("attempts") or ()))
        epoch = (status.get("observedGeneration"), run, ended, str(news))
        for entry in status.get("conditions") or ():
            said[change.item["metadata"]["uid"], change.kind, entry["type"], epoch].append(entry)
    return said


def _flapping(changes: list[Change]) -> list[str]:
    """A condition that comes back to what it said before, though nothing else has changed."""
    found = []
    for (_, kind, type_, _), entries in _statuses(changes).items():
        words: list[str] = []
        for entry in entries:
            word = f"{entry['status']} {entry['reason']}"
            if not words or words[-1] != word:
                words.append(word)
        if len(set(words)) != len(words):
            found.append(f"condition {type_} of {kind} flaps: {' -> '.join(words)}")
    return found


def _moved_times(changes: list[Change]) -> list[str]:
    """lastTransitionTime belongs to the status: it moves with it and only with it."""
    found = []
    for (_, kind, type_, _), entries in _statuses(changes).items():
        for before, after in pairwise(entries):
            is_same = before["status"] == after["status"]
            if is_same and before["lastTransitionTime"] != after["lastTransitionTime"]:
                found.append(f"lastTransitionTime of {type_} of {kind} moved while it stayed {after['status']}")
    return found
