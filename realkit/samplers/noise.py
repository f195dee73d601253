"""Noise for the steps of stochastic samplers: each image's own, drawn in float32 on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    Noise = Callable[[float, float], torch.Tensor]


def gaussian(x: torch.Tensor, generators: list[torch.Generator], sigmas: list[float]) -> Noise:
    """Fresh unit noise at each call, from each image's generator."""
    import torch

    def draw(now: float, then: float) -> torch.Tensor:
        noise = [torch.randn(x.shape[1:], generator=g, device=g.device) for g in generators]
        return torch.stack(noise).to(x.device, x.dtype)

    return draw


def brownian(x: torch.Tensor, generators: list[torch.Generator], sigmas: list[float]) -> Noise:
    """Increments of one Brownian path an image, scaled to unit variance: steps that overlap share
    their noise, at any number of steps.

    The path is torchsde's BrownianTree over [lowest sigma, highest sigma] with the image's seed, as
    in k-diffusion.
    """
    import torch
    import torchsde

    low, high = torch.tensor(min(s for s in sigmas if s > 0)), torch.tensor(max(sigmas))
    trees: list[torchsde.BrownianTree] = []

    def draw(now: float, then: float) -> torch.Tensor:
        if not trees:  # a run of one step draws nothing, and has no range for a path
            trees.extend(
                torchsde.BrownianTree(low, torch.zeros(x.shape[1:]), high, entropy=g.initial_seed())
                for g in generators
            )
        a, b = torch.tensor(then), torch.tensor(now)
        with warnings.catch_warnings():
            # torchsde keeps its range to six digits, and warns of an end that lies beyond them.
            warnings.filterwarnings("ignore", message="Should have")
            noise = torch.stack([-tree(a, b) for tree in trees]) / (b - a).sqrt()
        return noise.to(x.device, x.dtype)

    return draw


SOURCES = {"gaussian": gaussian, "brownian": brownian}
