"""The entries of a sweep of notebooks: its file, checked against each notebook."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Required

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FiniteFloat,
    StrictStr,
    TypeAdapter,
    ValidationError,
)
from typing_extensions import TypedDict

from realkit.apps.notebooks.parameters import UNKNOWN, assigned, check_value, parameters_cell
from realkit.base import credentials
from realkit.base.door import expanded
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import yaml_file
from realkit.models.identity import ID_VERSION

ENTRIES = "entries"  # folder of the entries' own folders, in each of which lie:
MADE = "notebook.ipynb"  # the notebook as executed
LOG = "log.txt"  # what it and its kernel printed
BEGAN = ".began.json"  # what its results held before its present parameters and code

MOST_ENTRIES = 10_000
MOST_CHARACTERS = 200_000_000  # of shared parameters, over all entries

OUT = "out"  # the parameter that says where results go; the sweep sets it
SWEEP = "Sweep of notebooks"


def _none_is_empty(parameters: Any) -> Any:
    """An entry that YAML leaves empty has no parameters of its own."""
    return {} if parameters is None else parameters


Parameters = Annotated[dict[StrictStr, Any], BeforeValidator(_none_is_empty)]


class File(BaseModel):
    """What a sweep file may hold. `entries` maps names to parameters, `per` names a list parameter
    of which each value is an entry.

    `parameters` are shared by all entries of the file's `notebook`; an entry that names another
    `notebook` has only its own parameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    notebook: StrictStr | None = None
    parameters: Parameters = {}
    entries: dict[StrictStr, Parameters] | None = None
    per: StrictStr | None = None


class Record(TypedDict, total=False):
    """One execution of an entry, as entries.jsonl holds it."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]

    id: Required[str]
    name: Required[str]
    status: Required[Literal["ok", "failed", "stopped"]]
    folder: str
    reason: str
    seconds: FiniteFloat
    attempts: int


RECORD: TypeAdapter[Any] = TypeAdapter(Record)


@dataclass(frozen=True)
class Entry:
    """One execution of a notebook. `id` is the hash of its name and of all that determines it;
    `folder`, its name on disk, follows from the name alone."""

    id: str
    name: str
    folder: str
    notebook: Path
    parameters: dict[str, Any]  # those that replace the notebook's own, without `out`


@dataclass(frozen=True)
class Notebook:
    """A notebook's code and the defaults of its parameters cell."""

    path: Path
    code: list[list[Any]]  # source and tags of each code cell
    defaults: dict[str, Any]


class Notebooks:
    """The notebooks of a sweep, each read once. Paths are relative to the sweep file's folder."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._notebooks: dict[str, Notebook] = {}

    def get(self, name: object, where: str) -> Notebook:
        """Raises RequestError for a notebook that cannot be an entry."""
        if not isinstance(name, str) or not name:
            raise RequestError(
                f"{where}: notebook {shown(name)}, expected the path of an .ipynb file, relative to"
                " the sweep file"
            )
        if name not in self._notebooks:
            self._notebooks[name] = _read_notebook(self._base / expanded(name), where)
        return self._notebooks[name]


def _read_notebook(path: Path, where: str) -> Notebook:
    import nbformat

    if not path.is_file():
        raise RequestError(
            f"{where}: there is no notebook {str(path)!r}. Give its path relative to the sweep file"
        )
    where = f"{where}: {str(path)!r}"
    try:
        cells = nbformat.read(path, as_version=4).cells
        code = [cell for cell in cells if cell.cell_type == "code"]
        sources = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in code]
    except Exception as error:  # nbformat raises what the file provokes
        raise RequestError(f"{where} is no notebook: {one_line(error, 200)}") from error
    source = parameters_cell(code, where)
    if source is None:
        raise RequestError(
            f"{where} has no cell tagged 'parameters': tag the one with its settings"
        )
    defaults = assigned(source, where)
    if OUT not in defaults:
        raise RequestError(
            f"{where}: its parameters have no `out`: add it, and let the notebook write its results"
            " there"
        )
    return Notebook(path.resolve(), sources, defaults)


def read_entries(source: str | Path | Mapping[str, Any]) -> list[Entry]:
    """The entries of a sweep file, or of a mapping with the same keys, whose paths are relative to
    the working folder.

    Raises RequestError for an unknown key, notebook or parameter, and for an invalid value.
    """
    if isinstance(source, Mapping):
        settings, base = dict(source), Path.cwd()
    else:
        expected = "`notebook:` and `entries:`"
        settings = yaml_file(Path(source), f"Sweep file {str(source)!r}", expected)
        base = Path(source).parent
    for key in settings:
        if key not in File.model_fields:
            raise _unknown("key", key, File.model_fields, "the sweep of notebooks")
    if isinstance(settings.get("entries"), dict):
        named = settings["entries"].items()
        settings["entries"] = {str(name): parameters for name, parameters in named}
    try:
        file = File(**settings)
    except ValidationError as error:
        raise RequestError(f"{SWEEP}: {one_line(error)}") from error
    if (file.entries is None) == (file.per is None):
        raise RequestError(
            f"{SWEEP}: expected either `entries` (a mapping of names to parameters) or `per` (the"
            " name of a list parameter)"
        )
    _check_writable(settings)
    notebooks = Notebooks(base)
    parameters = _per(file, notebooks) if file.entries is None else file.entries
    if not parameters:
        raise RequestError(
            f"{SWEEP}: it has no entries, expected at least one name with its parameters"
        )
    _check_count(parameters, file)
    return [_entry(name, own, file, notebooks) for name, own in parameters.items()]


def _check_writable(settings: Mapping[str, Any]) -> None:
    """Raise RequestError for what cannot be written into a notebook, or must not be."""
    try:
        text = json.dumps(settings, ensure_ascii=False, default=str, skipkeys=True)
        text.encode()
    except (ValueError, RecursionError):
        raise RequestError(
            f"{SWEEP}: a value holds itself, or half of a character, and cannot be written into a"
            " notebook"
        ) from None
    if credentials.holds_secret(text):
        raise RequestError(
            f"{SWEEP}: it holds a secret, which would be stored in every notebook: set HF_TOKEN or"
            " CIVITAI_TOKEN instead"
        )


def _check_count(parameters: Mapping[str, Any], file: File) -> None:
    """Raise RequestError for entries whose notebooks would fill a disk: each holds the parameters
    that all share."""
    if len(parameters) > MOST_ENTRIES:
        raise RequestError(
            f"{SWEEP}: it has {len(parameters):,} entries, expected at most {MOST_ENTRIES:,}: each"
            " runs a notebook in a process of its own"
        )
    shared = {name: value for name, value in file.parameters.items() if name != file.per}
    size = len(json.dumps(shared, default=str, skipkeys=True)) * len(parameters)
    if size > MOST_CHARACTERS:
        raise RequestError(
            f"{SWEEP}: {len(parameters):,} entries repeat its shared parameters,"
            f" {size / 1e6:,.0f} million characters in all, expected at most"
            f" {MOST_CHARACTERS / 1e6:.0f} million: put long texts into a file"
        )


def _unknown(kind: str, name: str, names: Iterable[str], where: str) -> RequestError:
    names = list(names)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    expected = ", ".join(names)
    return RequestError(f"Unknown {kind} {shown(name)} in {where}.{hint} Expected: {expected}")


def _per(file: File, notebooks: Notebooks) -> dict[str, dict[str, Any]]:
    """The parameters of an entry for each value of a list parameter, by the value's name."""
    name, defaults = str(file.per), notebooks.get(file.notebook, SWEEP).defaults
    if name not in defaults:
        raise _unknown("parameter", name, defaults, "`per`")
    values = file.parameters.get(name, defaults[name])
    if not isinstance(values, (list, tuple)) or not values:
        what = "computed" if values is UNKNOWN else shown(values)
        raise RequestError(
            f"per {shown(name)}: it is {what}, expected a list of which each value is an entry:"
            " give it under `parameters`"
        )
    as_list = isinstance(defaults[name], (list, tuple))
    entries = {_label(value): {name: [value] if as_list else value} for value in values}
    if len(entries) < len(values):
        raise RequestError(f"per {shown(name)}: duplicate value in {shown(values)}")
    return entries


def _label(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_label(item)}" for key, item in value.items())
    return ", ".join(map(_label, value)) if isinstance(value, (list, tuple)) else str(value)


def _entry(name: str, settings: dict[str, Any], file: File, notebooks: Notebooks) -> Entry:
    where = f"Entry {shown(name)}"
    if not name.strip():
        raise RequestError(f"{where}: expected a name")
    own = dict(settings)
    path = own.pop("notebook", file.notebook)
    notebook = notebooks.get(path, where)
    shared = file.parameters if file.notebook in (None, path) else {}
    parameters = {**shared, **own}
    if OUT in parameters:
        raise RequestError(f"{where}: `out` is set by the sweep, to DIR/entries/NAME: leave it out")
    names = [key for key in notebook.defaults if key != OUT]
    for key, value in parameters.items():
        if key not in names:
            place = f"{where.lower()} ({notebook.path.name})"
            raise _unknown("parameter", key, names, place)
        check_value(key, value, notebook.defaults[key], where)
    return Entry(_id(name, notebook, parameters), name, _folder(name), notebook.path, parameters)


def _id(name: str, notebook: Notebook, parameters: dict[str, Any]) -> str:
    record = [ID_VERSION, name, notebook.code, parameters]
    canonical = json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _digest(canonical)[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _folder(name: str) -> str:
    """A folder's name that every file system takes: the entry's name where it is plain, else with
    a few digits of its hash, so that no two are the same."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")[:48]
    return plain if plain == name else f"{plain or 'entry'}-{_digest(name)[:6]}"
