"""The base of every document that crosses the pod boundary."""

import base64
import zlib
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from finetune_contract.paths import TERMINATION_LIMIT

_PACKED = b"zlib:"
"""Begins a message that is compressed; no JSON begins so."""

_MOST_UNPACKED = 256 * 1024
"""Bytes of a compressed message that are read: whatever a pod leaves, the operator's memory stays small."""


class Document(BaseModel):
    """A frozen JSON document: camelCase on the wire, unknown fields refused.

    Refusing unknown fields makes an older image fail at once (ContractViolation) instead of ignoring a setting.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        # Infinity and NaN have no JSON form; a metric that is not finite is reported as a failure, never as a number.
        allow_inf_nan=False,
    )

    def to_json(self) -> str:
        """The document as compact JSON, without fields that are unset."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    def to_message(self) -> bytes:
        """The document as it goes into a termination message, where bytes are dear.

        JSON without what is a default; where that is more than the kubelet keeps, compressed behind a mark.
        """
        text = self.model_dump_json(by_alias=True, exclude_defaults=True).encode()
        return text if len(text) <= TERMINATION_LIMIT else _PACKED + base64.b85encode(zlib.compress(text, 9))

    @classmethod
    def from_message(cls, message: str) -> Self:
        """What `to_message` has written.

        Raises:
            ValidationError: It is no such document.
        """
        return cls.model_validate_json(_unpacked(message))


def _unpacked(message: str) -> str | bytes:
    if not message.startswith(_PACKED.decode()):
        return message
    try:
        packed = base64.b85decode(message.removeprefix(_PACKED.decode()).strip())
        return zlib.decompressobj().decompress(packed, _MOST_UNPACKED)
    except (ValueError, zlib.error):
        return message


Sha256 = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""A digest written as `sha256:` and 64 hexadecimal digits."""

Address = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
"""Where something is stored; bounded as in the custom resources' status, which takes it over."""

Label = Annotated[str, StringConstraints(max_length=128)]
"""A word of a result; bounded as in the custom resources' status."""

Count = Annotated[int, Field(ge=0)]
"""Rows, steps, tokens, bytes: never negative."""


class StoredReference(Document):
    """A directory of the store, by content."""

    digest: Sha256
    uri: Address
    """`pvc://<claim>/<path>` or `s3://<bucket>/<prefix>/<path>`; in a pod it is, or is copied to, `/store/<path>`."""
