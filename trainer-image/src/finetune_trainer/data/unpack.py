"""A file's bytes as they were before gzip or zstd packed them, known by what they begin with, never by a name alone.

What is unpacked is bounded: a bomb, a small file that unpacks to a disk full, is refused by name instead of being read
until the pod is killed.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from finetune_contract.failure import FailureReason, FineTuneError
from finetune_trainer.data.sourcefile import SourceFile

MOST_RATIO = 200
"""How many times its size a file may unpack to; text that people write packs 3 to 30 times."""

FREE_BYTES = 64 * 1024 * 1024
"""What may be unpacked whatever the ratio: small files of repeated rows pack well."""

_BUFFER = 1024 * 1024
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
_ARCHIVES = {
    b"PK\x03\x04": "a ZIP archive",
    b"BZh": "packed by bzip2",
    b"\xfd7zXZ\x00": "packed by xz",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
}
_TAR_AT = 257


class _Stream(Protocol):
    def read(self, size: int = -1) -> bytes: ...

    def close(self) -> None: ...


@contextmanager
def opened(file: SourceFile) -> Iterator[io.BufferedReader]:
    """The unpacked content; `peek` shows its beginning.

    Raises:
        FineTuneError: DatasetInvalid when it is an archive, is torn, or unpacks to far more than its size.
    """
    with file.path.open("rb") as packed:
        magic = packed.read(4)
        packed.seek(0)
        inner, kind = _unpacked(packed, magic)
        with cast("io.BufferedReader", io.BufferedReader(_Bounded(file, inner, kind), _BUFFER)) as stream:
            _refuse_archive(file, stream.peek(_TAR_AT + 8))
            yield stream


def is_packed(path: Path) -> bool:
    """Whether a file begins like one that gzip or zstd has packed."""
    with path.open("rb") as file:
        return file.read(4).startswith((_GZIP, _ZSTD))


def bare_suffix(name: str) -> str:
    """The suffix below that of the packing: `.csv` of `a.csv.gz`."""
    path = PurePosixPath(name.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _SUFFIXES else path.suffix


def _unpacked(packed: BinaryIO, magic: bytes) -> tuple[_Stream, str | None]:
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=packed), "gzip"
    if magic.startswith(_ZSTD):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, mode="r"), "zstd"), "zstd"
    return packed, None


def _refuse_archive(file: SourceFile, head: bytes) -> None:
    kinds = [kind for magic, kind in _ARCHIVES.items() if head.startswith(magic)]
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        kinds.append("a tar archive")
    if head.startswith((_GZIP, _ZSTD)):
        kinds.append("packed twice")
    if kinds:
        raise FineTuneError(
            FailureReason.DATASET_INVALID,
            f"{file.name}: is {kinds[0]}; unpack it, or pack single files by gzip or zstd",
        )


class _Bounded(io.RawIOBase):
    """Bytes that are counted, with the errors of unpacking named."""

    def __init__(self, file: SourceFile, inner: _Stream, kind: str | None) -> None:
        super().__init__()
        self._file = file
        self._inner = inner
        self._kind = kind
        self._count = 0
        self._limit = max(FREE_BYTES, MOST_RATIO * file.path.stat().st_size)

    def readable(self) -> bool:
        """Needed by BufferedReader."""
        return True

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]
        """Fill the buffer as far as the file goes."""
        chunk = self._read(len(buffer))
        buffer[: len(chunk)] = chunk
        self._count += len(chunk)
        if self._kind and self._count > self._limit:
            raise FineTuneError(
                FailureReason.DATASET_INVALID,
                f"{self._file.name}: unpacks to more than {MOST_RATIO} times its size, like a decompression bomb; "
                "if it is none, unpack it first",
            )
        return len(chunk)

    def close(self) -> None:
        """Close what is below, too."""
        self._inner.close()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            return self._inner.read(size)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise self._torn(error) from error
        except OSError as error:
            # pyarrow's decompressor has no error of its own; the system's errors have a number.
            if self._kind and error.errno is None:
                raise self._torn(error) from error
            raise

    def _torn(self, error: Exception) -> FineTuneError:
        return FineTuneError(
            FailureReason.DATASET_INVALID, f"{self._file.name}: is not a whole {self._kind} file: {error}"
        )
