"""A sweep of notebooks as it is asked for: its file, the parameters that each notebook takes, and
the entries that this comes to. Starts nothing."""

from __future__ import annotations

import ast
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictStr, ValidationError

from realkit.base import credentials
from realkit.base.errors import RequestError, one_line, shown
from realkit.base.files import UniqueKeyLoader
from realkit.models.identity import ID_VERSION

if TYPE_CHECKING:
    pass

ENTRIES = "entries"  # folder of the entries' own folders
MADE = "notebook.ipynb"  # in an entry's folder: the notebook as executed
LOG = "log.txt"  # and what it and its kernel printed
# and what its results held when it was first begun with the parameters and the code that it has now
BEGAN = ".began.json"


OUT = "out"  # the parameter that says where results go; the kit sets it
UNKNOWN = object()  # a default that is computed: any value may take its place
EXPECTED = {
    "text": "text, a list of texts or null", "number": "a number, a list of numbers or null",
    "bool": "true or false", "mapping": "a mapping",
    "list": "a list of the same kind of values",
}  # fmt: skip

Parameters = Annotated[
    dict[StrictStr, Any], BeforeValidator(lambda given: {} if given is None else given)
]


class File(BaseModel):
    """What a sweep file may hold. `entries` maps names to parameters, `per` names a list parameter
    of which each value is an entry.

    `parameters` are shared by all entries; one that names another `notebook` than the file's has
    only its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    notebook: StrictStr | None = None
    parameters: Parameters = {}
    entries: dict[StrictStr, Parameters] | None = None
    per: StrictStr | None = None


@dataclass(frozen=True)
class Entry:
    """One execution of a notebook. `id` is the hash of its name and of all that determines it;
    `folder`, its name on disk, follows from the name alone."""

    id: str
    name: str
    folder: str
    notebook: Path
    parameters: dict[str, Any]  # those that differ from the notebook's own, without `out`


@dataclass(frozen=True)
class Notebook:
    """A notebook's code and the defaults of its parameters cell."""

    path: Path
    code: list[list[Any]]  # source and tags of each code cell
    defaults: dict[str, Any]


def read_entries(file: str | Path | Mapping[str, Any]) -> list[Entry]:
    """The entries of a sweep file, or of the same as a mapping, whose paths are then relative to
    the working folder.

    Raises RequestError, before anything is started, for a key, a notebook, a parameter or a value
    that cannot be met.
    """
    given, base = (
        (dict(file), Path.cwd())
        if isinstance(file, Mapping)
        else (_yaml(Path(file)), Path(file).parent)
    )
    for name, known in ((name, File.model_fields) for name in given):
        if name not in known:
            raise _unknown("key", name, known, "the sweep of notebooks")
    if isinstance(given.get("entries"), dict):
        given["entries"] = {str(name): settings for name, settings in given["entries"].items()}
    try:
        asked = File(**given)
    except ValidationError as error:
        raise RequestError(f"Sweep of notebooks: {one_line(error)}") from error
    if (asked.entries is None) == (asked.per is None):
        raise RequestError(
            "Sweep of notebooks: expected either `entries` (a mapping of names to parameters) or"
            " `per` (the name of a list parameter)"
        )
    _written(given)
    found: dict[str, Notebook] = {}
    named = _per(asked, base, found) if asked.entries is None else asked.entries
    entries = [_entry(name, settings, asked, base, found) for name, settings in named.items()]
    if not entries:
        raise RequestError(
            "Sweep of notebooks: it has no entries, expected at least one name with its parameters"
        )
    return entries


def _yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        given = yaml.load(text, UniqueKeyLoader)
    except OSError as error:
        raise RequestError(f"Sweep file {str(path)!r} cannot be read: {one_line(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RequestError(f"Sweep file {str(path)!r} is not YAML: {one_line(error)}") from error
    if not isinstance(given, dict):
        raise RequestError(
            f"Sweep file {str(path)!r} holds {type(given).__name__}, expected keys such as"
            " `notebook:` and `entries:`"
        )
    if credentials.holds_secret(text):
        raise RequestError(
            f"Sweep file {str(path)!r} holds a secret, which would stand in every notebook it"
            " makes: set HF_TOKEN or CIVITAI_TOKEN instead"
        )
    return {str(key): value for key, value in given.items()}


def _written(given: Mapping[str, Any]) -> None:
    """Raise RequestError for what cannot be written into a notebook, or must not be."""
    try:
        text = json.dumps(given, ensure_ascii=False, default=str, skipkeys=True)
        text.encode()
    except (ValueError, RecursionError):
        raise RequestError(
            "Sweep of notebooks: a value holds itself, or half of a character, and cannot be"
            " written into a notebook"
        ) from None
    if credentials.holds_secret(text):
        raise RequestError(
            "Sweep of notebooks: it holds a secret, which would stand in every notebook it makes:"
            " set HF_TOKEN or CIVITAI_TOKEN instead"
        )


def _unknown(kind: str, name: str, known: Iterable[str], where: str) -> RequestError:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return RequestError(
        f"Unknown {kind} {shown(name)} in {where}.{hint} Expected some of {', '.join(known)}"
    )


def _notebook(written: object, base: Path, found: dict[str, Notebook], where: str) -> Notebook:
    """The notebook that `written`, a path relative to the sweep file, names. Raises RequestError
    for one that no entry can be made of."""
    import nbformat

    if not isinstance(written, str) or not written:
        raise RequestError(
            f"{where}: notebook {shown(written)}, expected the path of an .ipynb file, relative to"
            " the sweep file"
        )
    if written in found:
        return found[written]
    path = base / Path(written).expanduser()
    if not path.is_file():
        raise RequestError(
            f"{where}: there is no notebook {str(path)!r}. Give its path relative to the sweep file"
        )
    try:
        cells = [
            cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"
        ]
        code = [[cell.source, sorted(cell.metadata.get("tags", []))] for cell in cells]
    except Exception as error:  # nbformat raises what the file provokes
        raise RequestError(
            f"{where}: {str(path)!r} is no notebook: {one_line(error)[:200]}"
        ) from error
    tagged = [source for source, tags in code if "parameters" in tags]
    if len(tagged) != 1:
        raise RequestError(
            f"{where}: {str(path)!r} has {'no cell' if not tagged else f'{len(tagged)} cells'}"
            " tagged 'parameters': tag the one that holds its settings"
        )
    defaults = assigned(tagged[0], f"{where}: {str(path)!r}")
    if OUT not in defaults:
        raise RequestError(
            f"{where}: the parameters of {str(path)!r} have no `out`: add it, and let the notebook"
            " write its results there"
        )
    found[written] = Notebook(path.resolve(), code, defaults)
    return found[written]


def assigned(source: str, where: str) -> dict[str, Any]:
    """Names a parameters cell assigns, with their literal values; UNKNOWN for those that are
    computed. Raises RequestError where it is not Python."""
    plain = "\n".join(
        "" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines()
    )  # IPython's own lines
    try:
        body = ast.parse(plain).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise RequestError(
            f"{where}: its parameters cell is not Python: {one_line(error)}"
        ) from error
    defaults: dict[str, Any] = {}
    for statement in body:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for name in (
                node
                for target in targets
                for node in ast.walk(target)
                if isinstance(node, ast.Name)
            ):
                alone = any(name is target for target in targets)
                defaults[name.id] = _literal(statement.value) if alone else UNKNOWN
    return defaults


def _literal(node: ast.expr | None) -> Any:
    try:
        return UNKNOWN if node is None else ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN


def _per(asked: File, base: Path, found: dict[str, Notebook]) -> dict[str, dict[str, Any]]:
    """An entry for each value of a list parameter, named by the value."""
    name = str(asked.per)
    notebook = _notebook(asked.notebook, base, found, "Sweep of notebooks")
    if name not in notebook.defaults:
        raise _unknown("parameter", name, notebook.defaults, "`per`")
    values = asked.parameters.get(name, notebook.defaults[name])
    if not isinstance(values, (list, tuple)) or not values:
        given = "computed" if values is UNKNOWN else shown(values)
        raise RequestError(
            f"per {shown(name)}: it is {given}, expected a list of which each value is an entry:"
            " give it under `parameters`"
        )
    entries = {
        _label(value): {
            name: [value] if isinstance(notebook.defaults[name], (list, tuple)) else value
        }
        for value in values
    }
    if len(entries) < len(values):
        raise RequestError(f"per {shown(name)}: a value stands twice in {shown(values)}")
    return entries


def _label(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_label(item)}" for key, item in value.items())
    return ", ".join(map(_label, value)) if isinstance(value, (list, tuple)) else str(value)


def _entry(
    name: str, settings: dict[str, Any], asked: File, base: Path, found: dict[str, Notebook]
) -> Entry:
    where = f"Entry {shown(name)}"
    if not name.strip():
        raise RequestError(f"{where}: expected a name")
    own = dict(settings)
    written = own.pop("notebook", asked.notebook)
    notebook = _notebook(written, base, found, where)
    parameters = {**(asked.parameters if asked.notebook in (None, written) else {}), **own}
    if OUT in parameters:
        raise RequestError(
            f"{where}: `out` is set by the sweep, DIR/entries/NAME: leave it out of the parameters"
        )
    for key, value in parameters.items():
        if key not in notebook.defaults:
            raise _unknown(
                "parameter",
                key,
                (known for known in notebook.defaults if known != OUT),
                f"{where.lower()} ({notebook.path.name})",
            )
        check(key, value, notebook.defaults[key], where)
    return Entry(_id(name, notebook, parameters), name, _folder(name), notebook.path, parameters)


def check(key: str, value: Any, default: Any, where: str) -> None:
    """Raise RequestError for a value that a notebook cannot be given, or that is of another kind
    than the default tells."""
    if not _plain(value):
        raise RequestError(
            f"{where}: parameter {shown(key)} is {shown(value)}, expected text, finite numbers,"
            " true or false, null, or lists and mappings of them"
        )
    if not _fits(value, default):
        raise RequestError(
            f"{where}: parameter {shown(key)} is {shown(value)}, expected"
            f" {EXPECTED[_kind(default)]}: its default is {shown(default)}"
        )


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return (
        value is None
        or isinstance(value, (str, bool, int))
        or (isinstance(value, float) and math.isfinite(value))
    )


def _kind(value: Any) -> str:
    for kind, types in (
        ("bool", bool),
        ("number", (int, float)),
        ("text", str),
        ("list", (list, tuple)),
        ("mapping", dict),
    ):
        if isinstance(value, types):
            return kind
    return "any"  # None, or computed


def _fits(value: Any, default: Any) -> bool:
    """Whether a value may stand where the notebook has this default. None says nothing; for text or
    a number also a list of them, and null, may stand."""
    kind, given = _kind(default), _kind(value)
    if kind == "list":
        kinds = {_kind(item) for item in default}
        return given == "list" and (not default or kinds == {"any"} or _all_of(value, kinds))
    if kind in ("text", "number"):
        return given == kind or value is None or (given == "list" and _all_of(value, {kind}))
    return kind in ("any", given)


def _all_of(values: Iterable[Any], kinds: set[str]) -> bool:
    """Whether all values are of these kinds; null and a mapping (a value that sets others with it)
    may stand among them, lists hold the same."""
    return all(
        _all_of(item, kinds) if _kind(item) == "list" else _kind(item) in kinds | {"any", "mapping"}
        for item in values
    )


def _id(name: str, notebook: Notebook, parameters: dict[str, Any]) -> str:
    canonical = json.dumps(
        [ID_VERSION, name, notebook.code, parameters],
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()[:16]


def _folder(name: str) -> str:
    """A folder's name that every file system takes: the name itself where it is plain, else with a
    few digits of its hash, so that no two are the same."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-.")[:48]
    if plain == name:
        return plain
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{plain or 'entry'}-{digest[:6]}"
