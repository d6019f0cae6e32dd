"""A dataset repository of the Hugging Face Hub, or of a mirror of it under HF_ENDPOINT.

Which files are a split's, the repository's card says or, without one, the file names; both by the rules of the library
`datasets`, which are asked about empty files of the same names. No code of the repository is run.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from finetune_contract.datasets import HubFiles
from finetune_contract.failure import FailureReason, FineTuneError
from finetune_contract.paths import ENV_HF_TOKEN
from finetune_trainer.data.unpack import bare_suffix

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_FIELD = "spec.source.huggingFace"
_CARD = "README.md"
_READABLE = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".pq", ".txt")
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
"""Errors of the disk that the Hub's client writes to; every other OSError from it is the network's."""


def download(source: HubFiles, directory: Path) -> tuple[dict[str, Path], str]:
    """The files of the split by their names in the repository, and the commit that they are of.

    Raises:
        FineTuneError: SourceNotFound, SourceAccessDenied or SourceUnavailable; DatasetInvalid where the split's files
            are of no type that is read.
    """
    # Read by huggingface_hub when it is imported, and nothing of ours imports it before.
    os.environ.setdefault("HF_HOME", str(directory / "huggingface"))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    return _Repository(source, directory).download()


class _Repository:
    def __init__(self, source: HubFiles, directory: Path) -> None:
        self._source = source
        self._directory = directory
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        # False: no token, not even one that a cache might hold.
        self._token = os.environ.get(ENV_HF_TOKEN) or False

    def download(self) -> tuple[dict[str, Path], str]:
        from huggingface_hub import HfApi

        with self._named_errors():
            api = HfApi(endpoint=self._endpoint, token=self._token)
            info = api.dataset_info(self._source.repo, revision=self._source.revision)
            if not info.sha:
                raise FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{self._where()}: the Hub named no commit")
            names = [file.rfilename for file in info.siblings or ()]
            card = self._fetch(api, _CARD, info.sha) if _CARD in names else None
            wanted = self._files_of_split(names, card)
            return {name: self._fetch(api, name, info.sha) for name in wanted}, info.sha

    def _fetch(self, api: "HfApi", name: str, commit: str) -> Path:
        path = api.hf_hub_download(
            self._source.repo, name, repo_type="dataset", revision=commit, local_dir=self._directory / "files"
        )
        return Path(path)

    def _files_of_split(self, names: list[str], card: Path | None) -> list[str]:
        from datasets.data_files import (
            EmptyDatasetError,
            contains_wildcards,
            get_data_patterns,
            resolve_pattern,
            sanitize_patterns,
        )

        tree = self._tree(names)
        settings = self._config(card)
        base = str(tree / settings.get("data_dir", ""))
        try:
            files = settings.get("data_files")
            patterns = get_data_patterns(base) if files is None else sanitize_patterns(files)
        except EmptyDatasetError as error:
            raise self._not_found(f"has no data files (found {', '.join(names[:10]) or 'nothing'})") from error
        splits = {str(split): list(found) for split, found in patterns.items()}
        if self._source.split not in splits:
            raise self._not_found(f"has no split {self._source.split!r}; it has {', '.join(splits)}", "split")
        found: list[str] = []
        for pattern in splits[self._source.split]:
            try:
                found += resolve_pattern(pattern, base)
            except FileNotFoundError as error:
                if not contains_wildcards(pattern):
                    raise self._not_found(f"has no file {pattern}, which its card names") from error
        if not found:
            raise self._not_found(f"has no files for split {self._source.split!r}", "split")
        wanted = sorted({PurePosixPath(path).relative_to(tree).as_posix() for path in found})
        readable = [name for name in wanted if bare_suffix(name) in _READABLE and PurePosixPath(name).name != _CARD]
        if not readable:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"{self._where()}: split {self._source.split} is {', '.join(wanted[:5])}; JSON, CSV, Parquet and text "
                "are read",
            )
        return readable

    def _tree(self, names: list[str]) -> Path:
        """Empty files of the repository's names."""
        tree = self._directory / "names"
        for name in names:
            path = tree / name
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        tree.mkdir(parents=True, exist_ok=True)
        return tree.resolve()

    def _config(self, card: Path | None) -> dict[str, str]:
        """What the card says of the configuration; empty where it has none."""
        from datasets.utils.metadata import MetadataConfigs
        from huggingface_hub import DatasetCard

        configs = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data) if card else {}
        name = self._source.config
        if name is None:
            defaults = [key for key, value in configs.items() if key == "default" or value.get("default")]
            name = defaults[0] if defaults else next(iter(configs)) if len(configs) == 1 else None
            if name is None and configs:
                raise self._not_found(f"has several configurations: {', '.join(configs)}; name one", "config")
        elif name not in configs and not (name == "default" and not configs):
            listed = ", ".join(configs) or "only default"
            raise self._not_found(f"has no configuration {name!r}; it has {listed}", "config")
        return dict(configs.get(name) or {}) if name else {}

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError

        try:
            yield
        except FineTuneError:
            raise
        except HfHubHTTPError as error:
            raise self._of_status(error.response.status_code, error) from error
        except HFValidationError as error:
            raise self._not_found(str(error)) from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
                raise
            # The client's transport errors have no common base over its releases.
            reason = FailureReason.SOURCE_UNAVAILABLE
            raise FineTuneError(reason, f"{self._where()}: {type(error).__name__}: {error}") from error

    def _of_status(self, status: int, error: Exception) -> FineTuneError:
        if status == 404:
            return self._not_found("not found (404); check repo and revision")
        if status in (401, 403):
            remedy = "the token may not read it" if self._token else "no token was given; set tokenSecretRef"
            return FineTuneError(
                FailureReason.SOURCE_ACCESS_DENIED,
                f"{self._where()}: refused ({status}): it is gated, private or does not exist, and {remedy}",
            )
        return FineTuneError(FailureReason.SOURCE_UNAVAILABLE, f"{self._where()}: answered {status}: {error}")

    def _not_found(self, fault: str, field: str | None = None) -> FineTuneError:
        return FineTuneError(FailureReason.SOURCE_NOT_FOUND, f"{self._where(field)}: {fault}")

    def _where(self, field: str | None = None) -> str:
        endpoint = f" at {self._endpoint}" if self._endpoint else ""
        path = f"{_FIELD}.{field}" if field else _FIELD
        return f"{path}: {self._source.repo}@{self._source.revision}{endpoint}"
