"""Joining a Ray cluster, or starting one here; how many workers it holds, and what it says when it
fails."""

from __future__ import annotations

import os
import signal
import socket
import threading

from realkit.base import credentials
from realkit.base.errors import RequestError, shown

ANSWER_S = 10.0  # for a cluster to be reached at all
OBJECTS = 2**29  # bytes of a local start's object store: batches pass through it, never models


def connect(address: str | None, workers: int | None) -> None:
    """Join a cluster, or start one here. Ray's handler of SIGTERM is put aside: a run stops after
    the batch in work."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if mine else None
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        if (host := (named or "").removeprefix("ray://").rpartition(":"))[
            0
        ]:  # Ray itself asks for minutes
            socket.create_connection((host[0].strip("[]"), int(host[2])), ANSWER_S).close()
        if named:
            ray.init(address=named, log_to_driver=False, configure_logging=False)
        else:
            cores = max(os.cpu_count() or 1, workers or 1)
            ray.init(
                address="local",
                num_cpus=cores,
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=False,
                object_store_memory=OBJECTS,
            )
    except SystemExit:  # Ray's own handler of SIGTERM, while it begins
        raise RequestError(
            "Told to stop while Ray began: nothing was done. Run again to begin"
        ) from None
    except Exception as error:  # Ray raises many kinds
        raise RequestError(
            f"Ray at {shown(named or 'this machine')} does not answer: {cause(error)}. Is it up,"
            " and $RAY_AUTH_MODE what it is there?"
        ) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def places(share: float) -> int:
    """Workers that the machines hold: so many to a GPU as its share allows, for one is on one GPU;
    without a share, one a machine."""
    import ray

    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not share:
        return len(alive)
    return int(
        sum(
            int(node.get("GPU", 0)) * int(1 / share) if share <= 1 else node.get("GPU", 0) // share
            for node in alive
        )
    )


def cause(error: BaseException) -> str:
    """The last line of what Ray says, which names the cause."""
    lines = [line.strip() for line in credentials.scrub(str(error)).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def resources() -> str:
    import ray

    found = ray.cluster_resources()
    return (
        f"the cluster has {found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs on"
        f" {len([node for node in ray.nodes() if node['Alive']])} machines"
    )
