"""The Cell: one point of a sweep's grid."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One point of the grid: everything that determines its picture, by name. Sides in pixels."""

    model: str
    sampler: str
    prompt: str
    negative: str
    seed: int
    steps: int
    guidance: float
    width: int
    height: int
    dtype: str | None = None  # None: by the device
    upscaler: str | None = None
    target: int | tuple[int, int] | None = None
    strength: float | None = None  # of a redraw; None where nothing is redrawn
    nfe_budget: int | None = None  # denoiser calls that the equal-nfe profile allowed

    @property
    def pixels(self) -> tuple[int, int]:
        """(width, height) of its final picture."""
        from realkit.base.pictures import target_size

        return (self.width, self.height) if self.target is None else target_size((self.width, self.height), self.target)
