"""The schema of a results folder's records: what may be written, read and attached.

Fields that a record does not name are kept as they are: a later version may have written them.
`catalog/columns.toml` says which of a row's fields become columns of the table.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, ConfigDict, Field, FiniteFloat, TypeAdapter
from typing_extensions import TypedDict  # pydantic does not read Python 3.11's own

from realkit.catalog.columns import COLUMNS
from realkit.sweeps.ids import cell_id

# A parent's stage comes before.
STAGES = ("denoise", "refine", "decode", "upscale", "score", "embed")
FILED = ("denoise", "refine", "decode", "upscale", "embed")  # stages that leave a file
ABOUT = ("score", "embed")  # stages that say something of a picture, and stand without it
KINDS = {  # what a stage makes
    "denoise": "latents", "refine": "latents", "decode": "picture", "upscale": "picture",
    "score": "number", "embed": "embedding",
}  # fmt: skip
OPEN = ConfigDict(extra="allow", strict=True)

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[FiniteFloat, Field(ge=0)]
Joules = Annotated[FiniteFloat, Field(ge=0)]
GiB = Annotated[FiniteFloat, Field(ge=0)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Pixels = Annotated[int, Field(ge=1, le=2**20)]


class Row(TypedDict, total=False):
    """One attempt to make one artifact."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    id: Required[Id]
    stage: Required[Literal["denoise", "refine", "decode", "upscale", "score", "embed"]]
    status: Required[Literal["ok", "failed"]]
    parent: Id | None
    run: str
    at: FiniteFloat
    sha256: Hash  # of the file of latents
    pixels: str  # hash of a picture's pixels
    error_type: str
    error: str
    scorer: str
    prompt: str | None
    value: FiniteFloat
    truncated_tokens: Count
    cut_tokens: dict[str, dict[str, int]]  # of prompt and negative, that its encoders do not see
    cut: Count  # tokens of a prompt that a scorer does not see
    load_s: Seconds | None
    encode_s: Seconds | None
    denoise_s: Seconds | None
    decode_s: Seconds | None
    upscale_s: Seconds | None
    score_s: Seconds | None
    denoise_j: Joules
    decode_j: Joules
    upscale_j: Joules
    embed_s: Seconds | None
    encoder: str
    space: Id  # of embeddings: those of one space may be compared
    photograph: Hash  # of the pixels of a photograph that was embedded, as its file has them
    batch: Annotated[int, Field(ge=1)]
    nfe: Count
    network_passes: Count
    dtype: str | None
    device: str | None
    rung: str | None
    tile: int | str | None
    peak_vram_gib: GiB | None
    peak_vram_reserved_gib: GiB | None
    peak_ram_gib: GiB | None
    image_width: Pixels
    image_height: Pixels
    scheduler: dict[str, Any]


class CellSettings(TypedDict, total=False):
    """A cell's settings; those younger than the first folders may be absent."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    model: Required[str]
    sampler: Required[str]
    prompt: Required[str]
    negative: Required[str]
    seed: Required[Count]
    steps: Required[Annotated[int, Field(ge=1)]]
    guidance: Required[FiniteFloat]
    width: Required[Pixels]
    height: Required[Pixels]
    dtype: str | None
    upscaler: str | None
    target: Pixels | tuple[Pixels, Pixels] | list[Pixels] | None
    strength: FiniteFloat | None
    nfe_budget: int | None


class CellIds(TypedDict, total=False):
    __pydantic_config__ = OPEN  # type: ignore[misc]

    latents: Required[Id]
    decoded: Required[Id]
    image: Required[Id]
    begun: Id | Literal[""]


class CellRecord(TypedDict):
    """A planned cell."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    id: Id
    cell: CellSettings
    ids: CellIds
    batch: Count


class Asked(TypedDict, total=False):
    """What a run was asked for: each of these cells with each of these scores. `race` names the
    race that may spare some of them."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    cells: Required[list[Id]]
    scorers: Required[list[str]]
    race: Id
    encoders: dict[str, Id]  # name → the space of its embeddings


class RunRecord(TypedDict, total=False):
    """A run: its machine, with `versions`, and what it was asked for. A machine that joined later
    was asked nothing; the record of runs before folder format 2 has no machine."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    run: Required[str]
    started: str
    id_version: int
    realkit: str
    versions: dict[str, str | None]
    asked: Asked


Shown = Annotated[str, Field(pattern=r"^([0-9a-f]{16}|photograph/[^/\\\x00-\x1f]{1,200})$")]


class Vote(TypedDict):
    """One choice between two pictures, by artifact id, or photographs of elsewhere."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    a: Shown
    b: Shown
    left: Literal["a", "b"]  # which of them was shown left
    choice: Literal["a", "b", "tie"]
    voter: Annotated[str, Field(min_length=1, max_length=80)]
    at: FiniteFloat  # seconds since 1970
    prompt: str


Arm = Annotated[dict[str, str | int | FiniteFloat | bool | None], Field(min_length=1)]


class Contrast(TypedDict, total=False):
    """Two arms at one look. Effects are in the metric's unit, of seconds and memory in percent."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    a: Required[Arm]
    b: Required[Arm]
    verdict: Required[Literal["better", "worse", "equivalent", "undecided"]]
    reason: str
    effect: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    n_prompts: Count
    n_pairs: Required[Count]
    n_units: Count
    left_out: Count
    prompts_needed: Count | None
    linked: dict[str, tuple[str, str] | list[str]]  # axes that differ with the arms


class Look(TypedDict, total=False):
    """One look of a race: what it decides of the contrasts that were open until then."""

    __pydantic_config__ = OPEN  # type: ignore[misc]

    race: Required[Id]
    look: Required[Annotated[int, Field(ge=1)]]
    by: Required[Annotated[list[str], Field(min_length=1)]]
    metric: Required[str]
    prompts: Required[list[str]]  # made since the look before
    planned: Required[Count]  # prompts of the sweep
    confidence: Required[Annotated[FiniteFloat, Field(gt=0, lt=1)]]
    contrasts: Required[list[Contrast]]
    run: str
    at: FiniteFloat


def _complete_look(look: Look) -> Look:
    """The look, if each of its arms has a value of every axis that is raced."""
    for contrast in look["contrasts"]:
        for arm in (contrast["a"], contrast["b"]):
            if list(arm) != look["by"]:
                raise ValueError(f"an arm of {', '.join(arm)}, expected {', '.join(look['by'])}")
    return look


def _complete_row(row: Row) -> Row:
    """The row, if it has what its stage and status call for."""
    if row["status"] == "failed":
        needed: tuple[str, ...] = ("error_type", "error")
    elif row["stage"] == "score":
        needed = ("value", "parent")
    else:
        needed = ()
    if row["stage"] == "score":
        needed += ("scorer", "prompt")
    elif row["stage"] == "embed":
        needed += ("encoder", "space")
    if lacking := [name for name in needed if name not in row]:
        raise ValueError(f"a row {row['status']} of the stage {row['stage']} needs {lacking[0]}")
    if row["stage"] == "score" and (not row["scorer"] or row["scorer"] in COLUMNS):
        raise ValueError(f"a scorer named {row['scorer']!r}, which is no scorer's name")
    return row


def _complete_run(run: RunRecord) -> RunRecord:
    if "versions" not in run and "asked" not in run:
        raise ValueError("a run needs versions, or what it was asked for")
    return run


def _own_cell(record: CellRecord) -> CellRecord:
    """The record, if its id is that of its settings. A later version's may count more fields."""
    if record["cell"].keys() <= CellSettings.__annotations__.keys():
        own = cell_id(record["cell"], record["ids"]["image"])
        if record["id"] != own:
            raise ValueError(f"a cell {record['id']} whose settings and picture make it {own}")
    return record


ROW: TypeAdapter[Any] = TypeAdapter(Annotated[Row, AfterValidator(_complete_row)])
CELL: TypeAdapter[Any] = TypeAdapter(Annotated[CellRecord, AfterValidator(_own_cell)])
VOTE: TypeAdapter[Any] = TypeAdapter(Vote)
LOOK: TypeAdapter[Any] = TypeAdapter(Annotated[Look, AfterValidator(_complete_look)])
RUN: TypeAdapter[Any] = TypeAdapter(Annotated[RunRecord, AfterValidator(_complete_run)])


def last_rows(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last row of each id, which is the one that counts. Raises ValueError where an id is that
    of latents and of a picture, or of a score: it would be damage."""
    last: dict[str, dict[str, Any]] = {}
    for row in rows:
        before = last.setdefault(row["id"], row)
        if KINDS[before["stage"]] != KINDS[row["stage"]]:
            stages = f"{before['stage']} and of {row['stage']}"
            raise ValueError(f"rows.jsonl is damaged: {row['id']} is an id of {stages}")
        last[row["id"]] = row
    return last
