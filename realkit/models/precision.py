"""The sampler's state stays float32, whatever number format the network runs in.

Noise and the solver's arithmetic are then the same on every device. Only the network rounds.
"""

from __future__ import annotations

from typing import Any

# Tensors of a denoiser's call that take its number format: its state, the first argument or one of
# the first two names, and embeddings that an encoder in another format made.
CAST = ("sample", "hidden_states", "encoder_hidden_states", "timestep_cond")


def keep_state_float32(network: Any) -> None:
    """Hook a denoiser: its inputs are cast to its dtype, its output comes back as float32."""
    network.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
    network.register_forward_hook(_float_output)


def state_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The noisy latents (B, C, h, w) in the arguments of a denoiser's call."""
    if args:
        return args[0]
    return kwargs["hidden_states" if "hidden_states" in kwargs else "sample"]


def _cast_inputs(
    network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    dtype = network.dtype
    cast = {name: kwargs[name].to(dtype) for name in CAST if kwargs.get(name) is not None}
    if args:
        args = (args[0].to(dtype), *args[1:])
    return args, kwargs | cast


def _float_output(_network: Any, _args: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return output[0].float(), *output[1:]
    return type(output)(sample=output.sample.float())
