"""What a loaded model does: denoise and decode, on the rung of memory where it stands, climbing where memory runs out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from realkit import placement, samplers
from realkit.errors import RequestError
from realkit.families import FAMILIES, Going
from realkit.lookup import find
from realkit.measure import Stopwatch

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.models import ModelLock, ModelSpec
    from realkit.sweep import Cell


@dataclass(frozen=True)
class Request:
    """One picture of a batch: what may differ between the pictures of one batch."""

    prompt: str
    negative: str
    seed: int


@dataclass
class Denoised:
    """Latents (B, C, h, w), float32 on the CPU, with the measurements of the batch that made them."""

    latents: torch.Tensor
    encode_s: float
    denoise_s: float
    nfe: int
    network_passes: int
    truncated: list[int]
    scheduler: dict[str, Any]


class Placed:
    """What stands on a rung of the memory ladder and can climb it: the pipeline, or the one network, that its attribute `_held` names."""

    _held: ClassVar[str] = "pipe"
    device: torch.device
    rung: str
    rungs: tuple[str, ...]

    def climb(self) -> bool:
        """Go to the next rung; False on the last."""
        for rung in self.rungs[self.rungs.index(self.rung) + 1 :]:
            self.rung = rung
            placement.release()
            try:
                placement.place(getattr(self, self._held), self.rung, self.device)
                return True
            except Exception as error:
                if not placement.out_of_memory(error):
                    raise
        return False


class Decoder(Placed):
    """A loaded VAE: latents (C, h, w) → picture. Raises FloatingPointError where either is not finite."""

    _held = "vae"

    def __init__(self, vae: Any, family: str, on: torch.device, rung: str) -> None:
        from diffusers.image_processor import VaeImageProcessor

        self.vae, self.device, self.family = vae, on, FAMILIES[family]
        self.rung, self.rungs = rung, placement.LADDERS["decode"][on.type]
        self._to_picture = partial(VaeImageProcessor().postprocess, output_type="pil")

    def __call__(self, latents: torch.Tensor) -> Image:
        import torch

        if not torch.isfinite(latents).all():
            raise FloatingPointError("the latents are not finite: the model overflowed in its number format; try float32")
        with torch.inference_mode():
            z = self.family.unscaled(self.vae, latents[None]).to(self.device, self.vae.dtype)
            picture = self.vae.decode(z, return_dict=False)[0].float().cpu()
        if not torch.isfinite(picture).all():
            raise FloatingPointError("the VAE's picture is not finite: it overflowed in its number format; use a half-precision-safe VAE")
        return self._to_picture(picture if self.family.signed else picture.clamp(0, 1) * 2 - 1)[0]


class _Enough(Exception):
    """Stops a pipeline after its first call of the network."""


class Model(Placed):
    """A loaded model. Calling it makes a picture; the stages use `denoise`. Out of memory, it climbs the ladder: `rung` says where it stands."""

    def __init__(self, locked: ModelLock, pipe: Any, load_s: float, on: torch.device, rung: str, rungs: tuple[str, ...], asked: str | None) -> None:
        self.locked, self.name, self.spec, self.pipe, self.load_s = locked, locked.name, locked.spec, pipe, load_s
        self.device, self.rung, self.rungs, self._asked_dtype = on, rung, rungs, asked
        self.family = FAMILIES[self.spec.family]
        self.denoiser = getattr(pipe, self.family.denoiser)
        self.dtype = self.denoiser.dtype
        self._calls, self._pictures, self._most_calls, self._warm = 0, 0, 0, set[tuple[Any, ...]]()
        self._second: Model | None = None
        pipe.set_progress_bar_config(disable=True)
        self.denoiser.register_forward_pre_hook(self._before, with_kwargs=True)
        self.denoiser.register_forward_hook(self._after)

    # The sampler's state stays float32, whatever the network runs in: noise and arithmetic are then the same on every device.
    def _before(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._most_calls and self._calls >= self._most_calls:
            raise _Enough
        key = "hidden_states" if "hidden_states" in kwargs else "sample"
        state = args[0] if args else kwargs[key]
        self._calls, self._pictures = self._calls + 1, self._pictures + len(state)
        if args:
            return (args[0].to(self.dtype), *args[1:]), kwargs
        return args, kwargs | {key: state.to(self.dtype)}

    @staticmethod
    def _after(_: Any, __: Any, output: Any) -> Any:
        return (output[0].float(), *output[1:]) if isinstance(output, tuple) else output

    def __call__(
        self,
        prompt: str,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        negative: str | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Image:
        """One picture of the prompt, its settings noted in `image.info`; what is left out is the model's recommendation.

        Raises RequestError for a bad setting, and torch's out-of-memory error on the last rung only.
        """
        from realkit.provenance import annotate, pixel_hash
        from realkit.sweep import Sweep, denoise_determined

        axes = {"samplers": sampler, "steps": steps, "guidance": guidance, "negatives": negative, "size": size, "dtype": self._asked_dtype}
        sweep = Sweep(models=self.name, prompts=prompt, seeds=[seed], **{k: v for k, v in axes.items() if v is not None})
        cells = sweep.cells({self.name: self.spec})
        if len(cells) != 1:
            raise RequestError(f"{len(cells)} pictures asked for: a model makes one at a time, rk.Sweep makes grids")
        cell = cells[0]
        check(cell, self.locked)
        request = [Request(cell.prompt, cell.negative, cell.seed)]
        begun = climbing(self, lambda: self.denoise(request, cell.sampler, cell.steps, cell.guidance, (cell.width, cell.height)).latents)
        decoder = self
        if second := self.second:
            went = second_leg(cell.sampler, cell.steps, cell.guidance, second.spec)
            begun = climbing(second, lambda: second.denoise(request, *went, (cell.width, cell.height), begun=begun, start=self.end).latents)
            decoder = second if self.locked.decoding is second.locked else self
        image = climbing(decoder, lambda: decoder.decode(begun[0]))
        determined = denoise_determined(cell, self.locked) | {"vae": self.locked.vae_fingerprint}
        return annotate(image, {"stage": "decode", "cell": asdict(cell), "determined": determined, "pixels": pixel_hash(image)})

    @property
    def end(self) -> float:
        """The share of the noise schedule that this leg goes."""
        return self.spec.then.at if self.spec.then else 1.0

    @property
    def second(self) -> Model | None:
        """The second leg's model, loaded when first needed."""
        if self.locked.then and self._second is None:
            from realkit.loading import load

            rung = None if self.rung == self.rungs[0] else self.rung
            self._second = load(self.locked.then.name, self.locked.then, device=self.device.type, dtype=self._asked_dtype, rung=rung)
        return self._second

    def denoise(
        self,
        requests: Sequence[Request],
        sampler: str,
        steps: int,
        guidance: float,
        size: tuple[int, int],
        *,
        begun: torch.Tensor | None = None,
        start: float = 0.0,
    ) -> Denoised:
        """Latents for a batch that shares sampler, steps, guidance and size (width, height).

        A second leg is given what the first left, `begun` (B, C, h, w), and the share of the schedule at which it takes over.
        """
        import torch

        sampler = find(samplers.SAMPLERS, sampler)
        samplers.check(sampler, steps, self.locked.scheduler)
        if len(requests) > 1 and samplers.SAMPLERS[sampler].adaptive:
            raise RequestError(f"Sampler {sampler!r} chooses its steps by the picture: give it one at a time, not {len(requests)}")
        config, span = samplers.swap(self.pipe, sampler), (start, self.end)
        if span != (0.0, 1.0) and hasattr(self.pipe.scheduler, "cut"):
            self.pipe.scheduler.cut(*span)  # between whole steps; a pipeline would cut between calls
            span = (0.0, 1.0)
        guided = guidance > 1
        with torch.inference_mode():
            with Stopwatch(self.device) as encoding:
                words = self.family.encode(self.pipe, [r.prompt for r in requests], [r.negative for r in requests], guided)
            shape = self.family.shape(self.pipe, size, begun)

            def go() -> torch.Tensor:
                drawn = [torch.Generator("cpu").manual_seed(r.seed if begun is None else _of_second_leg(r.seed)) for r in requests]
                noise = torch.stack([torch.randn(shape, generator=g) for g in drawn])
                going = self.family.arguments(self.pipe, Going(noise, size, begun, *span))
                settings = {"num_inference_steps": steps, "guidance_scale": guidance, **samplers.call_settings(sampler)}
                self._calls, self._pictures = 0, 0
                return self.pipe(**words, **going, generator=drawn, **settings)[0]

            self._warm_up(go, (len(requests), guided, shape))
            with Stopwatch(self.device) as denoising:
                made = go()
        truncated = [self._truncated(r.prompt) for r in requests]
        return Denoised(made.float().cpu(), encoding.seconds, denoising.seconds, self._calls, self._pictures // len(requests), truncated, config)

    def decode(self, latents: torch.Tensor) -> Image:
        """The picture of latents (C, h, w). Raises FloatingPointError where they or the picture are not finite."""
        return Decoder(getattr(self.pipe, self.family.vae), self.spec.family, self.device, self.rung)(latents)

    def _truncated(self, prompt: str) -> int:
        """Tokens of a prompt beyond what the model's longest CLIP text encoder sees."""
        tokenizer = self.pipe.tokenizer if getattr(self.pipe, "tokenizer", None) is not None else self.pipe.tokenizer_2
        return max(0, len(tokenizer(prompt, truncation=False).input_ids) - tokenizer.model_max_length)

    def _warm_up(self, go: Any, shape: tuple[Any, ...]) -> None:
        """One call of the network at a shape it has not seen, so that set-up costs are not timed."""
        if shape in self._warm:
            return
        self._most_calls = 1
        try:
            go()
        except _Enough:
            pass
        finally:
            self._most_calls = 0
        self._warm.add(shape)


def climbing(tool: Any, work: Any) -> Any:
    """What `work` gives; out of memory, `tool` climbs its ladder and the work is done again. Raises the last error where no rung is left."""
    while True:
        try:
            return work()
        except Exception as error:
            if not placement.out_of_memory(error) or not isinstance(tool, Placed):
                raise
            said = error
        said.__traceback__ = None  # its frames hold the memory
        if not tool.climb():
            tried = ", ".join(tool.rungs[: tool.rungs.index(tool.rung) + 1])
            said.args = (f"{' '.join(str(said).split())[:200]} (on every rung: {tried})",)
            raise said


def check(cell: Cell, lock: ModelLock) -> None:
    """Raise RequestError where a cell's legs cannot be run by its sampler."""
    samplers.check(cell.sampler, cell.steps, lock.scheduler)
    if FAMILIES[lock.spec.family].second:
        raise RequestError(f"Model {cell.model!r} goes on from another's latents: take a model that ends with it (realkit list models)")
    if lock.then and lock.spec.then:
        sampler, steps, _ = second_leg(cell.sampler, cell.steps, cell.guidance, lock.then.spec)
        samplers.check(sampler, steps, lock.then.scheduler)
        if sampler == cell.sampler and not samplers.SAMPLERS[sampler].divides:
            raise RequestError(f"Sampler {sampler!r} cannot hand over in the middle, as model {cell.model!r} asks: take Euler or DPM++ 2M")


def second_leg(sampler: str, steps: int, guidance: float, second: ModelSpec) -> tuple[str, int, float]:
    """(sampler, steps, guidance) of a second leg: a refiner goes on with the first's, a decoder of another kind has its own."""
    if FAMILIES[second.family].vae == "vae":
        return sampler, steps, guidance
    own = second.settings
    return find(samplers.SAMPLERS, own.sampler), own.steps, float(own.guidance)


def _of_second_leg(seed: int) -> int:
    """The seed of a second leg's own noise: another stream than the first leg's, which began with the same seed."""
    return int.from_bytes(hashlib.sha256(f"second leg of {seed}".encode()).digest()[:7], "big")
