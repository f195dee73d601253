"""The page of a blind vote: one HTML file with all its pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from realkit.analysis.trials import PHOTOGRAPH, TRIALS, picture_id, trials
from realkit.base.errors import RequestError
from realkit.base.files import write_atomically
from realkit.base.pictures import of_other_endings, opaque, opened
from realkit.base.warn import warn_once
from realkit.runs.folder import read

SIDE = 768  # pixels, at most, of a picture's longer side: all at one size and in one encoding
TITLE = b"<title>Which picture is better?</title>"  # by which a page of ours is known
HEAD = 4096  # bytes of a page that hold its title
PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".webp")


def write(
    folder: str | Path,
    by: Sequence[str],
    out: Path,
    count: int = TRIALS,
    photographs: Path | None = None,
    seed: int = 0,
) -> None:
    """Write one HTML file with all its pictures, for any number of voters: it works from a disk,
    hides every name, and gives the votes as a file to merge. Raises RequestError where there is
    nothing to vote on, and for a file of that name that is no such page."""
    import jinja2

    if out.exists() and not _is_page(out):
        raise RequestError(
            f"Cannot write {str(out)!r}: it exists, and is no page of votes. Give another name, or"
            " remove it"
        )
    run = read(folder)
    df = run.table()
    names = photograph_names(photographs) if photographs else []
    ballot = trials(df, by, count, names[:count], seed)
    paths = {picture_id(name): run.folder / name for name in df["image"].dropna()}
    paths |= {f"{PHOTOGRAPH}{name}": Path(photographs or "") / name for name in names}
    wanted = [trial.a for trial in ballot] + [trial.b for trial in ballot]
    pictures = {name: embedded(paths[name]) for name in dict.fromkeys(wanted)}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("realkit.analysis"), autoescape=True
    )
    data = {"trials": [asdict(trial) for trial in ballot], "pictures": pictures}
    text = environment.get_template("vote.html").render(data=data, title=run.folder.resolve().name)
    write_atomically(out, lambda file: file.write(text.encode()))


def _is_page(path: Path) -> bool:
    """Whether a file is a page of votes, of this version or an earlier one."""
    try:
        with path.open("rb") as file:
            return TITLE in file.read(HEAD)
    except OSError:
        return False


def photograph_names(folder: Path) -> list[str]:
    """The pictures in a folder. Raises RequestError where there is none."""
    names = []
    left_out = ""
    if folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in PHOTOGRAPHS)
        left_out = of_other_endings(folder.iterdir(), PHOTOGRAPHS)
    if not names:
        raise RequestError(
            f"No photographs in {str(folder)!r}: expected a folder with"
            f" {', '.join(PHOTOGRAPHS)}{left_out and f'; {left_out}'}"
        )
    if left_out:
        warn_once(f"photographs {str(folder)!r}: {left_out}")
    return names


def embedded(path: Path) -> str:
    """A picture as a data address: RGB, upright, at most SIDE pixels, JPEG without subsampling."""
    from PIL import Image

    with opened(path) as image:
        picture = opaque(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
