"""The grammar of references: package, config, hub id, hub file, web address."""

from __future__ import annotations

import re

PACKAGE = "package:"
CONFIG = "config:"  # the shipped configs of a kind of single file
HUB_ID = re.compile(r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+?))?(:(?P<variant>[\w-]+))?$")
HUB_FILE = re.compile(
    r"^(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[\w./"
    r" +()-]+\.(safetensors|ckpt|pt|pth|bin))$"
)
HUB_URL = re.compile(
    r"^https://(www\.)?(huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)(/(tree|blob|resolve)/(?P<revision>[^/]+)(/(?P<file>.+?))?)?/?(\?.*)?$"
)


def plain(ref: str) -> str:
    """The hub's web addresses as the references they mean; anything else as it is."""
    if not (url := HUB_URL.match(ref)):
        return ref
    return (
        url["id"]
        + (f"@{url['revision']}" if url["revision"] not in (None, "main") else "")
        + (f"/{url['file']}" if url["file"] else "")
    )
