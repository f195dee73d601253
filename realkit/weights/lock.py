"""The lock of a reference: the SHA-256 of each file that is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from realkit.weights.folders import canonical

SINGLE = ".safetensors"  # the name in a lock of the one file that it is


@dataclass(frozen=True)
class Lock:
    """What a reference meant when it was first met: the SHA-256 of each file that is loaded.

    `revision` is the hub's commit or Civitai's version, "" where contents came from a disk. A
    single file stands under the name ".safetensors".
    """

    ref: str
    kind: Literal["folder", "file", "hub", "civitai", "url"]
    revision: str = ""
    variant: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def single(self) -> bool:
        """Whether it is one file, not a folder."""
        return set(self.files) == {SINGLE}

    @property
    def fingerprint(self) -> str:
        """Hash of what determines results: contents, not where they lie."""
        return self.digest()

    def digest(self, within: str = "", without: str | None = None) -> str:
        """The fingerprint of a folder's part: of files below `within`, or of those not below
        `without`. A single file is one whole."""
        kept = {
            canonical(name, self.variant): sha
            for name, sha in self.files.items()
            if self.single or _concerns(name, within, without)
        }
        return hashlib.sha256(json.dumps({"files": kept}, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _concerns(name: str, within: str, without: str | None) -> bool:
    return name.startswith(within) and not (without is not None and name.startswith(without))
