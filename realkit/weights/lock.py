"""The lock of a reference: the SHA-256 of each file that is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from realkit.base.errors import RequestError, shown
from realkit.weights.folders import canonical

SINGLE = ".safetensors"  # a single file's name in its lock


SHA256 = re.compile(r"[0-9a-f]{64}")
UNSAFE = re.compile(r"[\x00-\x1f\\]|^[A-Za-z]:")  # what leads elsewhere on Windows, too


def check_name(name: str, ref: str) -> None:
    """Raise RequestError for a file's name that is no plain relative path."""
    parts = name.split("/")
    if not name or UNSAFE.search(name) or any(part in ("", ".", "..") for part in parts):
        raise RequestError(
            f"{ref!r} names the file {shown(name)}: expected a plain path below its folder"
        )


@dataclass(frozen=True)
class Lock:
    """What a reference meant when it was first met.

    `files` is SHA-256 by name; a single file has the name ".safetensors". `revision` is the hub's
    commit or Civitai's version, "" where the contents came from a disk.
    """

    ref: str
    kind: Literal["folder", "file", "hub", "civitai", "url"]
    revision: str = ""
    variant: str = ""
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise RequestError for a name that leads out of its folder, and for an invalid hash. Both
        become parts of paths, and may come from a server or from somebody else's folder."""
        for name, sha in self.files.items():
            check_name(name, self.ref)
            if not SHA256.fullmatch(sha):
                raise RequestError(
                    f"{self.ref!r} gives {shown(sha)} as the SHA-256 of {shown(name)}: expected 64"
                    " hexadecimal digits"
                )

    @property
    def single(self) -> bool:
        """Whether it is one file, not a folder."""
        return set(self.files) == {SINGLE}

    @property
    def fingerprint(self) -> str:
        """The hash of what determines results: contents, not where they lie."""
        return self.digest()

    def digest(self, within: str = "", without: str | None = None) -> str:
        """The fingerprint of the files below `within`, or of those not below `without`.

        A single file has one fingerprint, whatever part is asked for.
        """
        files = {}
        for name, sha in self.files.items():
            left_out = without is not None and name.startswith(without)
            if self.single or (name.startswith(within) and not left_out):
                files[canonical(name, self.variant)] = sha
        return hashlib.sha256(json.dumps({"files": files}, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Lock:
        """The lock that `to_json` gave. Raises ValueError for anything else."""
        return _SCHEMA.validate_python(data)


_SCHEMA = TypeAdapter(Lock)
