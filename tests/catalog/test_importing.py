"""`realkit prompts import`, on small files laid out like the published suites."""

import hashlib
import json
import tomllib

import pytest
from click.testing import CliRunner

import realkit as rk
from realkit.apps.cli.main import main
from realkit.catalog import suites
from realkit.catalog.lookup import Table
from realkit.catalog.suites import Suite

PARTI = (  # quotes as in PartiPrompts.tsv: part of the words, also at the beginning
    "Prompt\tCategory\tChallenge\tNote\n"
    "a red cube\tIllustrations\tBasic\t\n"
    '"H O P E" painted on a wall\tArts\tWriting & Symbols\t\n'
    "a nurse \tPeople\tBasic\tafter a trailing space\n"
    "a nurse\tPeople\tBasic\t\n"
    "\tPeople\tBasic\t\n"
)
LAYOUTS = {
    "parti.tsv": (PARTI, ["a red cube", '"H O P E" painted on a wall', "a nurse"]),
    "sheet.tsv": ('prompt\n"a sign that says ""HI"""\n', ['a sign that says "HI"']),
    "drawbench.csv": (
        'Prompts,Category\r\nA red car.,Colors\r\n"A dog, and\na ""cat"".",DALL-E\r\n',
        ["A red car.", 'A dog, and\na "cat".'],
    ),
    "evaluation_metadata.jsonl": (
        '{"tag": "colors", "include": [{"class": "cow"}], "prompt": "a photo of a red cow"}\n\n'
        '{"tag": "counting", "include": [], "prompt": "a photo of two cows"}\n',
        ["a photo of a red cow", "a photo of two cows"],
    ),
    "photo.json": ('["a man on a pier", "a dog"]', ["a man on a pier", "a dog"]),
    "by_id.json": ('{"p1": "a man", "p2": {"prompt": "a dog"}}', ["a man", "a dog"]),
    "color_val.txt": (
        "\ufeffa green bench\r\n\r\na\u2028blue bowl",
        ["a green bench", "a\u2028blue bowl"],
    ),
}


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    folder = tmp_path / "catalog"
    folder.mkdir()
    monkeypatch.setenv("REALKIT_CATALOG", str(folder))
    return folder


def brought(path, *options, licence="Apache-2.0", name="mine"):
    """(exit code, standard output, standard error) of an import."""
    arguments = ["prompts", "import", str(path), "--name", name, "--licence", licence]
    result = CliRunner().invoke(main, [*arguments, *map(str, options)])
    return result.exit_code, result.stdout, result.stderr


def entry(name="mine"):
    return Table("prompt", Suite)[name]


@pytest.mark.parametrize("name", LAYOUTS)
def test_published_layouts_are_read(tmp_path, catalog, name):
    text, prompts = LAYOUTS[name]
    path = tmp_path / name
    path.write_bytes(text.encode())
    code, says, error = brought(path)
    assert (code, error) == (0, "") and f"{len(prompts)} prompts, licence Apache-2.0" in says
    suite = entry()
    assert suite.prompts == prompts and suite.source == name
    assert suite.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_an_entry_says_its_ids_licence_and_what_was_left_out(tmp_path, catalog):
    (tmp_path / "parti.tsv").write_text(PARTI)
    _, says, _ = brought(tmp_path / "parti.tsv", "--where", "Category=People", "--commercial", "no")
    suite = entry()
    assert suite.prompts == ["a nurse"] and suite.ids == () and suite.commercial == "no"
    assert suite.left_out == {"not Category=People": 2, "duplicate": 1, "empty": 1}
    assert "left out: 2 not Category=People, 1 duplicate, 1 empty" in says
    (tmp_path / "by_id.json").write_text(LAYOUTS["by_id.json"][0])
    assert brought(tmp_path / "by_id.json", name="other")[0] == 0
    assert entry("other").ids == ("p1", "p2") and entry().prompts == ["a nurse"]


def test_a_part_is_the_first_or_drawn_by_a_seed(tmp_path, catalog):
    path = tmp_path / "many.txt"
    path.write_text("\n".join(f"prompt {n}" for n in range(40)))
    assert brought(path, "--limit", 3)[0] == 0
    assert entry().prompts == ["prompt 0", "prompt 1", "prompt 2"]
    assert entry().left_out == {"after the limit": 37}
    drawn = []
    for seed in (1, 1, 2):
        assert brought(path, "--sample", 5, "--seed", seed, "--replace")[0] == 0
        drawn.append(entry().prompts)
    assert drawn[0] == drawn[1] != drawn[2] and entry().left_out == {"not drawn by seed 2": 35}
    assert drawn[0] == sorted(drawn[0], key=lambda prompt: int(prompt.split()[1]))


HOSTILE = {
    "no such file": ("none.tsv", None, [], "cannot be read: No such file"),
    "another ending": ("suite.xlsx", "x", [], "expected a name that ends in .tsv, .csv"),
    "nothing in it": ("a.txt", "", [], "holds no prompts"),
    "only blank": ("a.txt", "  \n\n", [], "has no prompt to take: 2 empty"),
    "no UTF-8": ("a.txt", b"caf\xe9\n", [], "'utf-8' codec"),
    "no header": ("a.tsv", "a\ta\nx\ty\n", [], "no header of distinct names"),
    "a row too long": ("a.csv", "prompt\nred, green\n", [], "record 2 has 2 columns, the header 1"),
    "an open quote": ("a.csv", 'prompt\n"red\n', [], "unexpected end of data"),
    "no JSON": ("a.json", "[", [], "cannot be read: Expecting value"),
    "deep JSON": ("a.json", "[" * 100_000, [], "cannot be read"),
    "a number": ("a.json", "3", [], "it holds 3, expected a list of prompts"),
    "a list of numbers": ("a.json", "[3]", [], "expected a text, or an object with a prompt"),
    "a bad line": ("a.jsonl", '{"prompt": "x"}\n{\n', [], "line 2: "),
    "no text": ("a.jsonl", '{"prompt": 3}\n', [], "record 1: 3 is no prompt: expected text"),
    "half a pair": ("a.json", '["\\ud800"]', [], "half of a surrogate pair"),
    "a suite's name": ("a.txt", "suite:people\n", [], "expected words; name a suite"),
    "which column": ("a.csv", "left,right\na,b\n", [], "--column with one of 'left', 'right'"),
    "no column": ("a.tsv", PARTI, ["--column", "Text"], "no column 'Text': expected one of"),
    "no where": ("a.tsv", PARTI, ["--where", "Kind=x"], "no column 'Kind'"),
    "no value": ("a.tsv", PARTI, ["--where", "Category=Peple"], "mean 'People'? Expected one of"),
    "no equals": ("a.tsv", PARTI, ["--where", "Category"], "expected COLUMN=VALUE"),
    "too few": ("a.tsv", PARTI, ["--sample", "9"], "there are 3 prompts to draw from"),
    "both": ("a.tsv", PARTI, ["--sample", "1", "--limit", "1"], "give one of them"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_file_that_is_no_suite_is_one_line_and_nothing_is_written(tmp_path, catalog, case):
    name, content, options, says = HOSTILE[case]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    code, _, error = brought(tmp_path / name, *options)
    assert code == 2 and says in error and error.count("\n") == 1 and len(error) < 400
    assert not list(catalog.iterdir())


def test_nothing_is_overwritten_unless_asked(tmp_path, catalog):
    own = '# mine\n["kept [x]"]\nabout = "by hand"\nprompts = [\n"[1]",\n]\n'
    (catalog / "prompts.toml").write_text(own)
    path = tmp_path / "a.txt"
    path.write_text('a red cube\nquote " and \\ and \x7f\n')
    assert brought(path)[0] == 0
    for name, says in (
        ("mine", "has suite:mine already: choose another --name, or --replace it"),
        ("Mine!", "has suite:mine, which 'Mine!' would mean too"),
        ("people", "has suite:people already"),
        ("…", "expected letters or digits"),
    ):
        code, _, error = brought(path, name=name)
        assert code == 2 and says in error
    path.write_text("a blue cube\n")
    assert brought(path, "--replace", licence="MIT")[0] == 0
    written = (catalog / "prompts.toml").read_text()
    assert written.startswith(own) and "a red cube" not in written
    assert entry().prompts == ["a blue cube"] and entry("kept [x]").about == "by hand"
    # An entry written by hand, which cannot be cut out of the file by its lines.
    (catalog / "prompts.toml").write_text('mine = {about = "x", prompts = ["y"]}\n')
    code, _, error = brought(path, "--replace")
    assert code == 2 and "remove [mine] from it by hand" in error
    assert tomllib.loads((catalog / "prompts.toml").read_text())["mine"]["prompts"] == ["y"]


def test_without_a_catalogue_of_ones_own_it_says_what_to_set(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("a red cube\n")
    monkeypatch.delenv("REALKIT_CATALOG", raising=False)
    code, _, error = brought(tmp_path / "a.txt")
    assert code == 2 and "$REALKIT_CATALOG is not set: set it to a folder" in error
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path / "none"))
    assert "expected a folder that exists" in brought(tmp_path / "a.txt")[2]


def test_a_sweep_takes_it_by_words_alone_and_says_what_restricts(tmp_path, catalog, monkeypatch):
    (tmp_path / "parti.tsv").write_text(PARTI)
    brought(tmp_path / "parti.tsv", "--commercial", "no", licence="CC-BY-NC-4.0")
    monkeypatch.setattr("realkit.sweeps.prompts.PROMPTS", table := Table("prompt", Suite))
    monkeypatch.setattr("realkit.sweeps.licences.PROMPTS", table)
    sweep = rk.Sweep(models="rehearsal/base", prompts="suite:mine")
    assert sweep.cells() == rk.Sweep(models="rehearsal/base", prompts=entry().prompts).cells()
    assert "licences that restrict: suite:mine (CC-BY-NC-4.0, not commercial)" in sweep.describe()
    plain = rk.Sweep(models="rehearsal/base", prompts="a blue cone").describe()
    assert "licences" not in plain
    turbo = rk.Sweep(models="sdxl-turbo", prompts="a blue cone", steps=1).describe()
    assert "licences that restrict: sdxl-turbo (" in turbo


def test_the_list_names_licence_and_count(tmp_path, catalog, monkeypatch):
    (tmp_path / "parti.tsv").write_text(PARTI)
    brought(tmp_path / "parti.tsv")
    monkeypatch.setattr(suites, "PROMPTS", Table("prompt", Suite))
    shown = CliRunner().invoke(main, ["list", "prompts"]).stdout
    line = next(line for line in shown.splitlines() if line.startswith("suite:mine"))
    assert "3 prompts" in line and "Apache-2.0" in line and "commercial: unknown" in line


def test_ids_are_one_for_each_prompt():
    with pytest.raises(ValueError, match="1 ids of 2 prompts: expected one each"):
        Suite(about="x", prompts=["a", "b"], ids=["1"])
    assert json.loads(Suite(about="x", prompts=["a"]).model_dump_json())["left_out"] == {}
