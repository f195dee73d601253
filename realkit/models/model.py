"""A loaded model: it denoises and decodes, and climbs the memory ladder where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from realkit.base.door import door
from realkit.base.errors import RequestError
from realkit.base.measure import Stopwatch
from realkit.base.warn import warn_once
from realkit.models import notices
from realkit.models.decoder import Decoder
from realkit.models.families import LegInput
from realkit.models.identity import denoise_determined
from realkit.models.ladder import Placed, climbing
from realkit.models.legs import check_legs, second_leg, second_leg_seed
from realkit.models.precision import keep_state_float32, state_of
from realkit.models.prompts import Cut, worst
from realkit.models.provenance import annotate, made_with, model_hash, pixel_hash
from realkit.models.request import Request, checked, completed
from realkit.samplers import build
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.models.lock import ModelLock


@dataclass
class Denoised:
    """Latents (B, C, h, w), float32 on the CPU, with the measurements of their batch.

    `cut_tokens` is what the text encoders do not see of each picture's "prompt" and "negative";
    `scheduler` is the scheduler's resolved config.
    """

    latents: torch.Tensor
    encode_s: float
    denoise_s: float
    denoise_j: float | None  # joules of the whole card; None where it has no counter
    nfe: int
    network_passes: int
    cut_tokens: list[dict[str, Cut]]
    scheduler: dict[str, Any]


class _WarmedUp(Exception):
    """Stops a pipeline after its first call of the network."""


class Model(Placed):
    """A loaded model. Calling it makes one picture; the stages of a run use `denoise`."""

    def __init__(
        self,
        lock: ModelLock,
        pipe: Any,
        *,
        load_s: float,
        device: torch.device,
        dtype: str | None,
        rung: str,
        rungs: tuple[str, ...],
        load_second: Callable[[str | None], Model] | None = None,
    ) -> None:
        """`dtype` is the requested number format; `load_second(rung)` loads the second leg."""
        self.locked, self.name, self.spec, self.family = lock, lock.name, lock.spec, lock.family
        self.pipe, self.load_s, self.device = pipe, load_s, device
        self.rung, self.rungs = rung, rungs
        self.denoiser = getattr(pipe, self.family.denoiser)
        self.dtype = self.denoiser.dtype
        self._requested_dtype = dtype
        self._load_second = load_second
        self._second: Model | None = None
        self._calls, self._pictures = 0, 0  # of the network, in the present run of the pipeline
        self._warming = False
        self._warm_shapes: set[tuple[Any, ...]] = set()
        pipe.set_progress_bar_config(disable=True)
        self.denoiser.register_forward_pre_hook(self._count, with_kwargs=True)
        keep_state_float32(self.denoiser)

    def _count(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._warming and self._calls:
            raise _WarmedUp
        self._calls += 1
        self._pictures += len(state_of(args, kwargs))

    @door
    def __call__(
        self,
        prompt: str,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        seed: int = 0,
        negative: str | None = None,
        size: int | str | tuple[int, int] | None = None,
    ) -> Image:
        """One picture of the prompt, with its settings in `image.info`. A setting left out is the
        model's recommendation.

        Raises RequestError for a bad setting, torch's out-of-memory error on the last rung only.
        """
        settings = {
            "prompt": prompt,
            "negative": negative,
            "seed": seed,
            "sampler": sampler,
            "steps": steps,
            "guidance": guidance,
            "size": size,
            "dtype": self._requested_dtype,
        }
        settings = {setting: checked(setting, value) for setting, value in settings.items()}
        request = completed(self.name, self.spec, settings)
        check_legs(request, self.locked)
        for line in notices.unread(notices.texts([request]), {self.name: self.locked}):
            warn_once(line)
        latents = climbing(self, lambda: self.denoise([request]).latents)
        decoder = self
        if second := self.second:
            leg = second_leg(request, second.spec)
            latents = climbing(
                second, lambda: second.denoise([leg], begun=latents, start=self.end).latents
            )
            if self.locked.decoding is second.locked:
                decoder = second
        image = climbing(decoder, lambda: decoder.decode(latents[0]))
        determined = denoise_determined(request, self.locked) | {"vae": self.locked.vae_fingerprint}
        record = {
            "stage": "decode",
            "cell": asdict(request),
            "determined": determined,
            "pixels": pixel_hash(image),
            "made": made_with(self.device, batch=1),
        }
        if checkpoint := model_hash(self.locked):
            record["model_hash"] = checkpoint
        return annotate(image, record)

    @property
    def end(self) -> float:
        """The share of the noise schedule at which this leg ends."""
        return self.spec.then.at if self.spec.then else 1.0

    @property
    def second(self) -> Model | None:
        """The second leg's model, loaded at first use."""
        if self._load_second and self._second is None:
            self._second = self._load_second(None if self.rung == self.rungs[0] else self.rung)
        return self._second

    def denoise(
        self, requests: Sequence[Request], *, begun: torch.Tensor | None = None, start: float = 0.0
    ) -> Denoised:
        """Latents for a batch of requests that differ in prompt, negative and seed alone.

        A second leg takes `begun` (B, C, h, w), the latents that the first left, and `start`, the
        share of the noise schedule at which it takes over. Raises RequestError for a batch that
        cannot be one.
        """
        import torch

        _check_batch(requests)
        first = requests[0]
        config = build.swap(self.pipe, first.sampler)
        start, end = self._cut(start, self.end)
        guided = first.guidance > 1
        prompts = [request.prompt for request in requests]
        negatives = [request.negative for request in requests]
        seeds = [request.seed for request in requests]
        if begun is not None:
            seeds = [second_leg_seed(seed) for seed in seeds]

        with torch.inference_mode():
            with Stopwatch(self.device) as encoding:
                embeddings = self.family.encode(self.pipe, prompts, negatives, guided)
            shape = self.family.shape(self.pipe, first.size, begun)

            def run_pipeline() -> torch.Tensor:
                noise, generators = first_noise(seeds, shape)
                leg = LegInput(noise, first.size, begun, start, end)
                self._calls, self._pictures = 0, 0
                latents: torch.Tensor = self.pipe(
                    **embeddings,
                    **self.family.arguments(self.pipe, leg),
                    **build.call_settings(first.sampler),
                    generator=generators,
                    num_inference_steps=first.steps,
                    guidance_scale=first.guidance,
                )[0]
                return latents

            self._warm_up(run_pipeline, (len(requests), guided, shape))
            with Stopwatch(self.device) as denoising:
                latents = run_pipeline()
        return Denoised(
            latents.float().cpu(),
            encoding.seconds,
            denoising.seconds,
            denoising.joules,
            self._calls,
            self._pictures // len(requests),
            [self._unread_tokens(request, guided) for request in requests],
            config,
        )

    def decode(self, latents: torch.Tensor) -> Image:
        """The picture of latents (C, h, w). Raises what Decoder raises."""
        vae = getattr(self.pipe, self.family.vae)
        return Decoder(vae, self.spec.family, self.device, self.rung)(latents)

    def _cut(self, start: float, end: float) -> tuple[float, float]:
        """Cut our own schedulers to a share of the noise schedule; return what is left to the
        pipeline. A pipeline cuts between calls of the network, a scheduler between whole steps."""
        if (start, end) == (0.0, 1.0) or not hasattr(self.pipe.scheduler, "cut"):
            return start, end
        self.pipe.scheduler.cut(start, end)
        return 0.0, 1.0

    def _unread_tokens(self, request: Request, guided: bool) -> dict[str, Cut]:
        """What the text encoders do not see of a request's prompt and, where it has an effect, of
        its negative; a text that all see whole has no entry."""
        cuts = {}
        texts = {"prompt": request.prompt} | ({"negative": request.negative} if guided else {})
        for name, text in texts.items():
            counts = []
            for part in ("tokenizer", "tokenizer_2", "tokenizer_3"):
                tokenizer = getattr(self.pipe, part, None)
                encoder = getattr(self.pipe, part.replace("tokenizer", "text_encoder"), None)
                if tokenizer is not None and encoder is not None:
                    most = self.family.lengths.get(part, tokenizer.model_max_length)
                    counts.append((len(tokenizer(text, truncation=False).input_ids), most))
            if cut := worst(counts):
                cuts[name] = cut
        return cuts

    def _warm_up(self, run_pipeline: Callable[[], Any], shape: tuple[Any, ...]) -> None:
        """Call the network once at a new shape, so that its set-up is not timed."""
        if shape in self._warm_shapes:
            return
        self._warming = True
        try:
            run_pipeline()
        except _WarmedUp:
            pass
        finally:
            self._warming = False
        self._warm_shapes.add(shape)


def first_noise(
    seeds: Sequence[int], shape: tuple[int, ...]
) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Unit noise (B, *shape), float32 on the CPU, and each picture's generator for later steps."""
    import torch

    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    noise = [torch.randn(shape, generator=generator) for generator in generators]
    return torch.stack(noise), generators


def _check_batch(requests: Sequence[Request]) -> None:
    first = requests[0]
    for request in requests:
        settings = (request.sampler, request.steps, request.guidance, request.size)
        if settings != (first.sampler, first.steps, first.guidance, first.size):
            raise RequestError(
                "A batch shares sampler, steps, guidance and size: give its requests one by one"
            )
    if len(requests) > 1 and SAMPLERS[first.sampler].adaptive:
        raise RequestError(
            f"Sampler {first.sampler!r} chooses its steps by the picture: give it one at a time,"
            f" not {len(requests)}"
        )
