"""What a file holds, told by its first bytes, where that is not what its name says."""

from __future__ import annotations

import re
import struct
import zipfile
from pathlib import Path

READ = 4096  # bytes that tell
PICKLE, SAFETENSORS, ZIP = "a pickled checkpoint", "a safetensors file", "a zip archive"
# What a file may be instead, by how it begins → what to do about it
STARTS: dict[str, tuple[bytes, str]] = {
    "a Git LFS pointer, not the file itself": (
        rb"version https://git-lfs", "run git lfs pull, or download the file from its page",
    ),
    "a web page (HTML)": (
        rb"(?i)\s*(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)",
        "the address leads to a page, or asks for a login: take the file's own download address",
    ),
    "a GGUF file": (rb"GGUF", "take the model in .safetensors"),
    "a picture": (rb"\x89PNG\r\n|\xff\xd8\xff|GIF8|RIFF....WEBP", "give a file of weights"),
    "a gzip archive": (rb"\x1f\x8b", "unpack it, and give the file in it"),
    "a 7z archive": (rb"7z\xbc\xaf\x27\x1c", "unpack it, and give the file in it"),
    "a RAR archive": (rb"Rar!\x1a\x07", "unpack it, and give the file in it"),
    "a JSON text, such as a server's error": (
        rb"\s*[{\[]", "download the file from its page again",
    ),
}  # fmt: skip
ADVICE = {
    PICKLE: "its name should end in .ckpt, .pt, .pth or .bin",
    SAFETENSORS: "rename it, so that its name ends in .safetensors",
    ZIP: "unpack it, and give the file in it",
}


def kind(path: Path) -> str:
    """What a file holds: "an empty file", PICKLE, SAFETENSORS, ZIP, a key of STARTS; "" for
    anything else, and for what cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(READ)
        if not start:
            return "an empty file"
        if start.startswith(b"PK\x03\x04"):
            return _of_archive(path)
    except (OSError, zipfile.BadZipFile):
        return ""
    if re.match(rb"\x80[\x02-\x05]", start):
        return PICKLE
    if _begins_as_safetensors(start):
        return SAFETENSORS
    for name, (pattern, _) in STARTS.items():
        if re.match(pattern, start, re.DOTALL):
            return name
    return ""


def mistaken(path: Path, expected: str) -> str:
    """What a file is instead of what was expected, and what to do: "it is a web page (HTML): …";
    "" where it may be what was expected, or nobody knows."""
    found = kind(path)
    if found in ("", expected):
        return ""
    advice = ADVICE.get(found) or STARTS.get(found, (b"", "download it again"))[1]
    return f"it is {found}: {advice}"


def _of_archive(path: Path) -> str:
    """Torch's checkpoints are zip archives too, with their pickle in data.pkl."""
    with zipfile.ZipFile(path) as archive:
        torchs = any(name.endswith("/data.pkl") for name in archive.namelist())
    return PICKLE if torchs else ZIP


def _begins_as_safetensors(start: bytes) -> bool:
    """Eight bytes with the length of the header, then the header, a JSON object."""
    if len(start) < 10:
        return False
    (length,) = struct.unpack("<Q", start[:8])
    return 2 <= length < 100_000_000 and start[8:9] == b"{"
