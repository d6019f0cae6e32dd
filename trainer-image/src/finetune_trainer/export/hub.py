"""A push to the Hugging Face Hub, or a mirror of it under HF_ENDPOINT: repository and branch are made where missing.

Pushing the same content twice makes no second commit, so a pod that died after its push costs nothing.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from finetune_contract.exporting import HubTarget
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_HF_TOKEN, MANIFEST_FILE

log = logging.getLogger(__name__)

_MAIN = "main"


class Pushed(NamedTuple):
    """Where a push has arrived."""

    uri: str
    commit: str


def push(directory: Path, target: HubTarget, message: str) -> Pushed:
    """Make a branch of a repository hold a directory's files; what else is there stays.

    Raises:
        FineTuneError: ExportDenied, ExportFailed, InvalidPlan or SourceUnavailable, naming repository and endpoint.
    """
    from huggingface_hub import HfApi

    endpoint, token = os.environ.get("HF_ENDPOINT") or None, os.environ.get(ENV_HF_TOKEN)
    if not token:
        raise FineTuneError(
            FailureReason.EXPORT_DENIED, f"{_where(target, endpoint)}: no token was given; set tokenSecretRef"
        )
    api = HfApi(endpoint=endpoint, token=token)
    with _named_errors(target, endpoint):
        # Asked first: a token may be allowed to write to one repository, and not to make any.
        if not api.repo_exists(target.repo):
            api.create_repo(target.repo, private=target.private, exist_ok=True)
        if target.revision != _MAIN:
            api.create_branch(target.repo, branch=target.revision, exist_ok=True)
        api.upload_folder(
            repo_id=target.repo,
            folder_path=directory,
            revision=target.revision,
            commit_message=message,
            ignore_patterns=[MANIFEST_FILE],
        )
        commit = api.model_info(target.repo, revision=target.revision).sha
    if not commit:
        raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{_where(target, endpoint)}: the Hub named no commit")
    log.info("%s is at commit %s", target.repo, commit)
    return Pushed(f"{api.endpoint}/{target.repo}/tree/{commit}", commit)


@contextmanager
def _named_errors(target: HubTarget, endpoint: str | None) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HfHubHTTPError as error:
        raise _of_status(error.response.status_code, target, endpoint, error) from error
    except HFValidationError as error:
        raise FineTuneError(FailureReason.INVALID_PLAN, f"{_where(target, endpoint)}: {error}") from error
    except FineTuneError:
        raise
    except Exception as error:
        # The client's transport errors have no common base over its releases; the files were verified before.
        reason = FailureReason.SOURCE_UNAVAILABLE
        raise FineTuneError(reason, f"{_where(target, endpoint)}: {type(error).__name__}: {error}") from error


def _of_status(status: int, target: HubTarget, endpoint: str | None, error: Exception) -> FineTuneError:
    where = _where(target, endpoint)
    if status in (401, 403):
        return FineTuneError(
            FailureReason.EXPORT_DENIED, f"{where}: refused ({status}): the token may not write to this repository"
        )
    # A repository that the token may not see is answered like one that is not there.
    if status in (400, 404, 409, 413, 422):
        return FineTuneError(FailureReason.EXPORT_FAILED, f"{where}: answered {status}: {error}")
    return FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{where}: answered {status}: {error}")


def _where(target: HubTarget, endpoint: str | None) -> str:
    return f"spec.exports: {target.repo}@{target.revision}{f' at {endpoint}' if endpoint else ''}"
