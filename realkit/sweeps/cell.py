"""The Cell: one point of a sweep's grid."""

from __future__ import annotations

from dataclasses import dataclass

from realkit.base.pictures import target_size
from realkit.models.request import Request


@dataclass(frozen=True)
class Cell(Request):
    """One point of the grid: a request and what comes after it, everything that determines its
    picture, by name."""

    upscaler: str | None = None
    target: int | tuple[int, int] | None = None
    strength: float | None = None  # of a redraw; None where nothing is redrawn
    nfe_budget: int | None = None  # denoiser calls that the equal-nfe profile allowed

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height) of its final picture."""
        return self.size if self.target is None else target_size(self.size, self.target)
