"""The Cell: one point of a sweep's grid."""

from __future__ import annotations

from dataclasses import dataclass

from realkit.base.pictures import target_size
from realkit.models.request import Request


@dataclass(frozen=True)
class Cell(Request):
    """One point of the grid: a request, and what is done with its picture.

    Its fields determine the final picture. None means without: no upscaler, no redraw, no budget.
    """

    upscaler: str | None = None
    target: int | tuple[int, int] | None = None  # pixels: the longer side, or (width, height)
    strength: float | None = None  # share of the noise schedule that a redraw repeats
    nfe_budget: int | None = None  # denoiser calls that the equal-nfe profile allows

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height) of the final picture."""
        return self.size if self.target is None else target_size(self.size, self.target)
