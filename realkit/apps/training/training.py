"""What all recipes share: a loop with cosine decay, averaged weights, checkpoints and resume."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

HALF_LIFE_STEPS = 700  # of the averaged weights; shorter in the first steps


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_tensor(pictures) -> torch.Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[int, float], torch.Tensor],
    *,
    steps: int,
    rate: float,
    folder: Path,
    floor: float = 0.0,
    save_seconds: float = 120,
) -> nn.Module:
    """Minimise `loss(step, progress)` by AdamW; leave the averaged weights in the model.

    Resumes from `folder/name.pt` where it exists, and saves to it every `save_seconds`. `progress`
    runs from 0 to 1. The rate rises over the first 2 % of the steps, then falls by a cosine to
    `floor` times `rate`.
    """
    path = folder / f"{name}.pt"
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, floor))
    average = [p.detach().clone() for p in weights]
    start = 0
    if path.exists():
        state = torch.load(path, map_location=device(), weights_only=True)
        start = state["step"]
        with torch.no_grad():
            for p, saved in zip(weights, state["weights"], strict=True):
                p.copy_(saved)
        average = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
    model.train()
    shown, saved_at, began, total = time.monotonic(), time.monotonic(), time.monotonic(), 0.0
    for step in range(start, steps):
        value = loss(step, step / steps)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        decay = min(0.5 ** (1 / HALF_LIFE_STEPS), (step + 1) / (step + 10))
        torch._foreach_lerp_(average, [p.detach() for p in weights], 1 - decay)
        total = 0.98 * total + 0.02 * value.item()
        now = time.monotonic()
        if now - shown > 15 or step == steps - 1:
            left = (now - began) / (step - start + 1) * (steps - step - 1)
            smooth = total / (1 - 0.98 ** (step - start + 1))
            print(
                f"{name} {step + 1}/{steps} loss {smooth:.4f}, {left / 60:.1f} min left", flush=True
            )
            shown = now
        if now - saved_at > save_seconds or step == steps - 1:
            _save(path, step + 1, weights, average, optimizer, schedule)
            saved_at = now
    with torch.no_grad():
        for p, mean in zip(weights, average, strict=True):
            p.copy_(mean)
    return model.eval()


def _rate(step: int, steps: int, floor: float) -> float:
    warm = max(1, steps // 50)
    if step < warm:
        return (step + 1) / warm
    cosine = 0.5 * (
        1
        + torch.cos(torch.tensor(torch.pi * min(1.0, (step - warm) / max(1, steps - warm)))).item()
    )
    return floor + (1 - floor) * cosine


def _save(path: Path, step: int, weights, average, optimizer, schedule) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {"step": step, "weights": [w.detach() for w in weights], "average": average}
    torch.save(
        state | {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, part
    )
    part.replace(path)
