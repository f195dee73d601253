"""The solvers by name, each with how it asks for the denoiser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    Answer = tuple[Tensor, Tensor]
    Steps = Generator[tuple[Tensor, float], Answer, Tensor]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True)
class Solver:
    """A solver's coroutine, and what a scheduler must know of it."""

    coroutine: Callable[..., Steps]
    calls_a_step: int = 1  # of the denoiser; the last step may take fewer
    span: bool = False  # takes the highest and the lowest level, not a list of them
    adaptive: bool = False  # chooses its steps by the picture
    divides: bool = True  # can begin or end in the middle of the schedule

    def __call__(self, *args: Any, **settings: Any) -> Steps:
        return self.coroutine(*args, **settings)

    @cached_property
    def takes_steps(self) -> bool:
        """Whether it has an argument `steps`, the number of steps of the run."""
        return "steps" in inspect.signature(self.coroutine).parameters


SOLVERS: dict[str, Solver] = {}


def solver(**facts: Any) -> Callable[[FunctionT], FunctionT]:
    """Decorate a coroutine: it becomes a solver under its own name, with the facts of Solver."""

    def register(coroutine: FunctionT) -> FunctionT:
        SOLVERS[coroutine.__name__] = Solver(coroutine, **facts)
        return coroutine

    return register
