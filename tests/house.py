"""How dense the package is: `python -m tests.house` counts what the house rules limit, and names
the worst places.

Counted over realkit/ without rehearsal/ and the training recipes, which are numerics: AST nodes
over physical lines. The lines themselves are shown and not limited: two fifths of them are blank
lines, docstrings and imports, and a limit would be met by taking those, or features, away.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
MOST = {
    "comprehensions / 1,000 lines": 25,
    "conditional expressions / 1,000 lines": 20,
    "comprehensions with two for": 0,
    "nested comprehensions": 0,
    "nested conditional expressions": 0,
    "files over 350 lines": 0,
    "functions over 60 lines": 0,
    "own imports inside functions": 50,  # each saves a command loading torch or pandas
    "words of README.md": 1_000,
}
WING_README_LINES = 60


@dataclass
class Count:
    """Figures by name, and the places that make them up."""

    figures: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, place: str) -> None:
        self.figures[name] += 1
        self.places.setdefault(name, []).append(place)


def sources() -> list[Path]:
    """The package's modules that are counted."""
    paths = sorted((ROOT / "realkit").rglob("*.py"))
    left_out = ("realkit/rehearsal/", "realkit/apps/training/")
    return [path for path in paths if not path.relative_to(ROOT).as_posix().startswith(left_out)]


def counted(paths: list[Path]) -> Count:
    count = Count()
    for path in paths:
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        lines = len(text.splitlines())
        count.figures["lines"] += lines
        if lines > 350:
            count.add("files over 350 lines", f"{name} ({lines})")
        _count_nodes(ast.parse(text), name, count)
    return count


def _count_nodes(tree: ast.AST, name: str, count: Count) -> None:
    for node in ast.walk(tree):
        place = f"{name}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, COMPREHENSIONS):
            count.add("comprehensions", place)
            if len(node.generators) > 1:
                count.add("comprehensions with two for", place)
            if _holds(node, COMPREHENSIONS):
                count.add("nested comprehensions", place)
        elif isinstance(node, ast.IfExp):
            count.add("conditional expressions", place)
            if _holds(node, (ast.IfExp,)):
                count.add("nested conditional expressions", place)
        elif isinstance(node, FUNCTIONS):
            lines = (node.end_lineno or 0) - node.lineno + 1
            if lines > 60:
                count.add("functions over 60 lines", f"{place} {node.name} ({lines})")
            for inner in ast.walk(node):
                if isinstance(inner, ast.ImportFrom) and (inner.module or "").startswith("realkit"):
                    count.add(
                        "own imports inside functions", f"{name}:{inner.lineno} {inner.module}"
                    )


def _holds(node: ast.AST, kinds: tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(inner, kinds) for inner in ast.walk(node) if inner is not node)


def figures() -> tuple[dict[str, float], Count]:
    """Every figure of MOST, and what was counted."""
    count = counted(sources())
    values: dict[str, float] = dict(count.figures)
    for name in ("comprehensions", "conditional expressions"):
        values[f"{name} / 1,000 lines"] = 1000 * count.figures[name] / count.figures["lines"]
    values["words of README.md"] = len(
        re.findall(r"\S+", (ROOT / "README.md").read_text(encoding="utf-8"))
    )
    return values, count


def main() -> int:
    values, count = figures()
    over = False
    print(f"{'lines':<40} {values['lines']:8.0f}")
    for name, most in MOST.items():
        value = values.get(name, 0)
        over = over or value > most
        print(f"{name:<40} {value:8.0f}  at most {most}{'   OVER' if value > most else ''}")
        if value > most:
            for place in count.places.get(name, [])[:12]:
                print(f"    {place}")
    for path in sorted((ROOT / "realkit").glob("*/README.md")):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > WING_README_LINES:
            over = True
            print(f"{path.relative_to(ROOT)} has {lines} lines, at most {WING_README_LINES}")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
