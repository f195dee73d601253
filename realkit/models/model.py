"""What a loaded model does: denoise and decode, on the rung of memory where it stands, climbing
where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from realkit.base.errors import RequestError
from realkit.base.measure import Stopwatch
from realkit.models.decoder import Decoder
from realkit.models.families import FAMILIES, Going
from realkit.models.identity import denoise_determined
from realkit.models.ladder import Placed, climbing
from realkit.models.legs import check_legs, second_leg, second_leg_seed
from realkit.models.provenance import annotate, pixel_hash
from realkit.models.request import Request, checked, completed
from realkit.samplers import build
from realkit.samplers.table import SAMPLERS

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from realkit.models.lock import ModelLock


@dataclass
class Denoised:
    """Latents (B, C, h, w), float32 on the CPU, with the measurements of the batch that made
    them."""

    latents: torch.Tensor
    encode_s: float
    denoise_s: float
    nfe: int
    network_passes: int
    truncated: list[int]
    scheduler: dict[str, Any]


class _Enough(Exception):
    """Stops a pipeline after its first call of the network."""


class Model(Placed):
    """A loaded model. Calling it makes a picture; the stages use `denoise`. Out of memory, it
    climbs the ladder: `rung` says where it stands."""

    def __init__(
        self,
        locked: ModelLock,
        pipe: Any,
        load_s: float,
        on: torch.device,
        rung: str,
        rungs: tuple[str, ...],
        asked: str | None,
        load_second: Callable[[str | None], Model] | None = None,
    ) -> None:
        """`load_second(rung)` loads the model of the second leg, where there is one."""
        self.locked, self.name, self.spec, self.pipe, self.load_s = (
            locked,
            locked.name,
            locked.spec,
            pipe,
            load_s,
        )
        self.device, self.rung, self.rungs, self._asked_dtype = on, rung, rungs, asked
        self.family = FAMILIES[self.spec.family]
        self.denoiser = getattr(pipe, self.family.denoiser)
        self.dtype = self.denoiser.dtype
        self._calls, self._pictures, self._most_calls, self._warm = 0, 0, 0, set[tuple[Any, ...]]()
        self._load_second = load_second
        self._second: Model | None = None
        pipe.set_progress_bar_config(disable=True)
        self.denoiser.register_forward_pre_hook(self._before, with_kwargs=True)
        self.denoiser.register_forward_hook(self._after)

    # The sampler's state stays float32, whatever the network runs in: noise and arithmetic are then
    # the same on every device.
    def _before(
        self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
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
        size: int | str | tuple[int, int] | None = None,
    ) -> Image:
        """One picture of the prompt, its settings noted in `image.info`; what is left out is the
        model's recommendation.

        Raises RequestError for a bad setting, and torch's out-of-memory error on the last rung
        only.
        """
        settings = {
            "prompt": prompt,
            "negative": negative,
            "seed": seed,
            "sampler": sampler,
            "steps": steps,
            "guidance": guidance,
            "size": size,
            "dtype": self._asked_dtype,
        }
        request = completed(
            self.name,
            self.spec,
            {setting: checked(setting, value) for setting, value in settings.items()},
        )
        check_legs(request, self.locked)
        latents = climbing(self, lambda: self.denoise([request]).latents)
        decoder = self
        if second := self.second:
            leg = second_leg(request, second.spec)
            latents = climbing(
                second, lambda: second.denoise([leg], begun=latents, start=self.end).latents
            )
            decoder = second if self.locked.decoding is second.locked else self
        image = climbing(decoder, lambda: decoder.decode(latents[0]))
        determined = denoise_determined(request, self.locked) | {"vae": self.locked.vae_fingerprint}
        return annotate(
            image,
            {
                "stage": "decode",
                "cell": asdict(request),
                "determined": determined,
                "pixels": pixel_hash(image),
            },
        )

    @property
    def end(self) -> float:
        """The share of the noise schedule that this leg goes."""
        return self.spec.then.at if self.spec.then else 1.0

    @property
    def second(self) -> Model | None:
        """The second leg's model, loaded when first needed."""
        if self._load_second and self._second is None:
            self._second = self._load_second(None if self.rung == self.rungs[0] else self.rung)
        return self._second

    def denoise(
        self, requests: Sequence[Request], *, begun: torch.Tensor | None = None, start: float = 0.0
    ) -> Denoised:
        """Latents for a batch of requests that differ in prompt, negative and seed alone.

        A second leg is given what the first left, `begun` (B, C, h, w), and the share of the
        schedule at which it takes over.
        """
        import torch

        first = requests[0]
        sampler, steps, guidance, size = first.sampler, first.steps, first.guidance, first.size
        if any(
            (request.sampler, request.steps, request.guidance, request.size)
            != (sampler, steps, guidance, size)
            for request in requests
        ):
            raise RequestError(
                "A batch shares sampler, steps, guidance and size: give its requests one by one"
            )
        build.check(sampler, steps, self.locked.scheduler)
        if len(requests) > 1 and SAMPLERS[sampler].adaptive:
            raise RequestError(
                f"Sampler {sampler!r} chooses its steps by the picture: give it one at a time, not"
                f" {len(requests)}"
            )
        config, span = build.swap(self.pipe, sampler), (start, self.end)
        if span != (0.0, 1.0) and hasattr(self.pipe.scheduler, "cut"):
            self.pipe.scheduler.cut(
                *span
            )  # between whole steps; a pipeline would cut between calls
            span = (0.0, 1.0)
        guided = guidance > 1
        with torch.inference_mode():
            with Stopwatch(self.device) as encoding:
                words = self.family.encode(
                    self.pipe, [r.prompt for r in requests], [r.negative for r in requests], guided
                )
            shape = self.family.shape(self.pipe, size, begun)

            def go() -> torch.Tensor:
                drawn = [
                    torch.Generator("cpu").manual_seed(
                        r.seed if begun is None else second_leg_seed(r.seed)
                    )
                    for r in requests
                ]
                noise = torch.stack([torch.randn(shape, generator=g) for g in drawn])
                going = self.family.arguments(self.pipe, Going(noise, size, begun, *span))
                settings = {
                    "num_inference_steps": steps,
                    "guidance_scale": guidance,
                    **build.call_settings(sampler),
                }
                self._calls, self._pictures = 0, 0
                return self.pipe(**words, **going, generator=drawn, **settings)[0]

            self._warm_up(go, (len(requests), guided, shape))
            with Stopwatch(self.device) as denoising:
                made = go()
        truncated = [self._truncated(r.prompt) for r in requests]
        return Denoised(
            made.float().cpu(),
            encoding.seconds,
            denoising.seconds,
            self._calls,
            self._pictures // len(requests),
            truncated,
            config,
        )

    def decode(self, latents: torch.Tensor) -> Image:
        """The picture of latents (C, h, w). Raises FloatingPointError where they or the picture are
        not finite."""
        return Decoder(
            getattr(self.pipe, self.family.vae), self.spec.family, self.device, self.rung
        )(latents)

    def _truncated(self, prompt: str) -> int:
        """Tokens of a prompt beyond what the model's longest CLIP text encoder sees."""
        tokenizer = (
            self.pipe.tokenizer
            if getattr(self.pipe, "tokenizer", None) is not None
            else self.pipe.tokenizer_2
        )
        return max(
            0, len(tokenizer(prompt, truncation=False).input_ids) - tokenizer.model_max_length
        )

    def _warm_up(self, go: Any, shape: tuple[Any, ...]) -> None:
        """One call of the network at a shape it has not seen, so that set-up costs are not
        timed."""
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
