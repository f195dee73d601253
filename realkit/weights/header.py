"""The header of a .safetensors file: its tensors' shapes and number formats, none of them read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from realkit.base.door import worded
from realkit.base.errors import RequestError, shown

FLOATING = {"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}  # as safetensors writes them
LONGEST = 160  # characters of a tensor's name; those of published files have fewer
# Marks of numbers that mean something only with their scales
SCALED = re.compile(
    r"(^|\.)(scaled_fp8|comfy_quant)$|scale_(weight|input)$|(weight|input)_scale(_inv|_2)?$"
    r"|\.(SCB|absmax|quant_map|nested_absmax|nested_quant_map|qweight|qzeros|scales|zeros)$"
    r"|quant_state"
)
# Names of tensors that no network needs: what training left, constants, ids that are counted anew
HARMLESS = re.compile(
    r"^model_ema\.|^optimizer|^embedding_manager\."
    r"|^(betas|alphas_cumprod|alphas_cumprod_prev|log_one_minus_alphas_cumprod"
    r"|sqrt_\w+|posterior_\w+|lvlb_weights|logvar|scale_factor|global_step|v_pred|ztsnr)$"
    r"|^(denoiser|model_sampling)\.(log_)?sigmas$"
    r"|^(first_stage_model\.)?loss\."
    r"|(^|\.)(position_ids|logit_scale|attn_mask|num_batches_tracked)$"
    # Stable Diffusion 2 reads its text encoder's last layer but one
    r"|^cond_stage_model\.model\.(transformer\.resblocks\.23\.|text_projection$)"
    # the first tower's pooled output is not used
    r"|^(cond_stage_model|conditioner\.embedders\.0)\.(transformer\.)?text_projection(\.weight)?$"
    # Stable Diffusion 3's loader takes the unit matrix instead, as which the file is checked
    r"|^text_encoders\.clip_l\.transformer\.text_projection\.weight$"
)

# Names of tensors that are whole numbers or truth values in the networks themselves
WHOLE = re.compile(r"index|mask|MetaUpsample|_ids$|num_batches_tracked$|num_updates$|global_step$")


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors, by name, and of itself."""

    shapes: Mapping[str, tuple[int, ...]]
    formats: Mapping[str, str]
    metadata: Mapping[str, str]


def read(path: Path) -> Header:
    """The header of a file. Raises RequestError where it has none."""
    from safetensors import safe_open

    shapes, formats = {}, {}
    called = f"Weight file {str(path)!r} has no valid safetensors header"
    with worded(called), safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_slice(name)
            shapes[name], formats[name] = tuple(tensor.get_shape()), tensor.get_dtype()
        return Header(shapes, formats, file.metadata() or {})


def quoted(name: str) -> str:
    """A tensor's name for an error's line, cut where a damaged or hostile file gives a long one."""
    return repr(name) if len(name) <= LONGEST else shown(name)


def check_numbers(owner: str, header: Header) -> None:
    """Raise RequestError for tensors that are no weights as they stand: quantised with scales,
    whole numbers, complex numbers or truth values; `owner` begins its line."""
    if scaled := sorted(name for name in header.shapes if SCALED.search(name)):
        raise RequestError(
            f"{owner} is quantised with scales ({len(scaled)} tensors such as {quoted(scaled[0])}),"
            " which is not supported: take it in float16, or in fp8 without scales"
        )
    odd = []
    for name, number in header.formats.items():
        apart = HARMLESS.search(name) or WHOLE.search(name)
        if number not in FLOATING and not apart:
            odd.append(name)
    if odd:
        first = min(odd)
        raise RequestError(
            f"{owner} holds tensors that are not floating point ({len(odd)}, such as"
            f" {quoted(first)} in {header.formats[first]}): take it in float16 or float32"
        )
