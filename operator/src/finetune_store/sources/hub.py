"""The Hugging Face Hub, or a mirror of it under HF_ENDPOINT."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_HF_TOKEN
from finetune_contract.staging import HubModel
from finetune_store.sources.base import Listing, is_needed

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

_OF_THE_VOLUME = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors of the disk that the Hub's client writes to; every other OSError from it is the network's."""


class HubSource:
    """A model repository, at the commit that its revision means now."""

    field = "spec.baseModel.huggingFace"

    def __init__(self, model: HubModel, scratch: Path) -> None:
        """Take the repository and a directory for the client's caches."""
        self._model = model
        self.address = f"hub:{model.repo}"
        self.name = f"{model.repo}@{model.revision}"
        # Read by huggingface_hub when it is imported, and nothing of ours imports it before.
        os.environ.setdefault("HF_HOME", str(scratch / "huggingface"))
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        # False: no token, not even one that a cache might hold.
        self._token = os.environ.get(ENV_HF_TOKEN) or False

    def listing(self) -> Listing:
        """The commit, and the files a model needs."""
        from huggingface_hub import HfApi

        with self._named_errors():
            api = HfApi(endpoint=self._endpoint, token=self._token)
            info = api.model_info(self._model.repo, revision=self._model.revision, files_metadata=True)
        files = {file.rfilename: file.size or 0 for file in info.siblings or () if is_needed(file.rfilename)}
        if not info.sha:
            raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{self._where()}: the Hub named no commit")
        return Listing(info.sha, files, _license_of(info))

    def fetch(self, listing: Listing, directory: Path) -> None:
        """Download the files at the listed commit."""
        from huggingface_hub import snapshot_download

        with self._named_errors():
            snapshot_download(
                self._model.repo,
                revision=listing.revision,
                allow_patterns=sorted(listing.files),
                local_dir=directory,
                endpoint=self._endpoint,
                token=self._token,
            )
        shutil.rmtree(directory / ".cache", ignore_errors=True)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            yield
        except HfHubHTTPError as error:
            raise self._of_status(error.response.status_code, error) from error
        except HFValidationError as error:
            raise FineTuneError(FailureReason.MODEL_NOT_FOUND, f"{self._where()}: {error}") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _OF_THE_VOLUME:
                raise
            # The client's transport errors have no common base over its releases.
            reason = FailureReason.SOURCE_UNAVAILABLE
            raise FineTuneError(reason, f"{self._where()}: {type(error).__name__}: {error}") from error

    def _of_status(self, status: int, error: Exception) -> FineTuneError:
        if status == 404:
            return FineTuneError(
                FailureReason.MODEL_NOT_FOUND, f"{self._where()}: not found (404); check repo and revision"
            )
        if status in (401, 403):
            remedy = "the token may not read it" if self._token else "no token was given; set tokenSecretRef"
            return FineTuneError(
                FailureReason.MODEL_ACCESS_DENIED,
                f"{self._where()}: refused ({status}): it is gated, private or does not exist, and {remedy}",
            )
        return FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{self._where()}: answered {status}: {error}")

    def _where(self) -> str:
        endpoint = f" at {self._endpoint}" if self._endpoint else ""
        return f"{self.field}: {self.name}{endpoint}"


def _license_of(info: "ModelInfo") -> str | None:
    """What the repository's card says; `other` names the licence beside it."""
    card = info.card_data
    found = card.get("license") if card else None
    if found == "other" and card:
        found = card.get("license_name") or found
    return found if isinstance(found, str) else None
