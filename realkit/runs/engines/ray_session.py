"""Joining a Ray cluster or starting one here, and what it has."""

from __future__ import annotations

import os
import signal
import socket
import threading

from realkit.base import credentials
from realkit.base.errors import RequestError, shown

ANSWER_S = 10.0  # for a cluster to answer at all
OBJECTS = 2**29  # bytes of a local start's object store: batches pass through it, never models


def connect(address: str | None, workers: int | None) -> None:
    """Join a cluster, or start one here. Raises RequestError where it does not answer.

    Ray's handler of SIGTERM is removed again, because a run stops after the batch in work.
    """
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        host, _, port = (address or "").removeprefix("ray://").rpartition(":")
        if host:  # Ray itself waits for minutes
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        if address:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        else:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, workers or 1),
                log_to_driver=False,
                configure_logging=False,
                include_dashboard=False,
                object_store_memory=OBJECTS,
            )
    except SystemExit:  # from Ray's own handler of SIGTERM
        message = "Stopped while Ray was starting. Nothing was done: run again to start"
        raise RequestError(message) from None
    except Exception as error:  # Ray raises many kinds
        raise RequestError(
            f"Ray at {shown(address or 'this machine')} does not answer: {cause(error)}. Check that"
            " it runs, and that $RAY_AUTH_MODE is the same as there"
        ) from None
    finally:
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)


def places(share: float) -> int:
    """How many workers the machines hold: as many a GPU as `share` of it allows, since a worker is
    on one GPU; without a share, one a machine."""
    import ray

    count = 0
    for node in ray.nodes():
        gpus = node["Resources"].get("GPU", 0)
        if not node["Alive"]:
            continue
        if not share:
            count += 1
        elif share <= 1:
            count += int(gpus) * int(1 / share)
        else:
            count += int(gpus // share)
    return count


def cause(error: BaseException) -> str:
    """The last line of Ray's message, which names the cause."""
    lines = [line.strip() for line in credentials.scrub(str(error)).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def resources() -> str:
    """What the cluster has, in words."""
    import ray

    total, alive = ray.cluster_resources(), sum(node["Alive"] for node in ray.nodes())
    cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
    return f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs on {alive} machines"
