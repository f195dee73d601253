import pytest

import realkit as rk
from realkit.base.errors import shown
from realkit.catalog.lookup import Table, find
from realkit.models.spec import ModelSpec


@pytest.mark.parametrize(
    "typed", ["DPM++ 2M Karras", "dpm++ 2m karras", "DPM++2M_Karras", "dpm 2m karras"]
)
def test_case_spaces_and_punctuation_do_not_matter(typed):
    assert find(rk.SAMPLERS, typed) == "DPM++ 2M Karras"


def test_every_sampler_keeps_a_name_of_its_own_when_folded():
    assert {find(rk.SAMPLERS, name.lower().replace(" ", "-")) for name in rk.SAMPLERS} == set(
        rk.SAMPLERS
    )


def test_unknown_name_says_what_was_meant_and_how_many_there_are():
    with pytest.raises(rk.RequestError) as error:
        find(rk.SAMPLERS, "DPM 2M Karas")
    assert (
        str(error.value)
        == f"Unknown sampler 'DPM 2M Karas'. Did you mean 'DPM++ 2M Karras'? {len(rk.SAMPLERS)}"
        " available: realkit list samplers"
    )


def test_tables_are_read_only():
    with pytest.raises(TypeError):
        rk.SAMPLERS["Mine"] = None
    with pytest.raises(ValueError):
        rk.SAMPLERS["Euler"].order = 3


def test_a_users_file_adds_entries(tmp_path, monkeypatch):
    (tmp_path / "models.toml").write_text('["mine"]\nsource = "package:base"\nsize = 256\n')
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    table = Table("model", ModelSpec)
    assert table["mine"].size == 256 and "rehearsal/base" in table
    (tmp_path / "models.toml").write_text('["mine"]\nsource = "x"\nblah = 3\n')
    with pytest.raises(rk.RequestError, match=r"models\.toml, entry 'mine': blah: Extra inputs"):
        len(Table("model", ModelSpec))


def test_an_entry_that_is_no_table_is_named(tmp_path, monkeypatch):
    (tmp_path / "models.toml").write_text("mine = 3\n")
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    with pytest.raises(
        rk.RequestError, match=r"'mine' is 3, expected a table of settings, \[mine\]"
    ):
        len(Table("model", ModelSpec))


def test_a_users_catalogue_that_cannot_be_read_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path / "nowhere"))
    with pytest.raises(
        rk.RequestError, match=r"\$REALKIT_CATALOG is .*nowhere': expected a folder"
    ):
        len(Table("model", ModelSpec))
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    (tmp_path / "models.toml").write_bytes(b"['caf\xe9']")
    with pytest.raises(rk.RequestError, match=r"models\.toml cannot be read: 'utf-8'"):
        len(Table("model", ModelSpec))
    (tmp_path / "models.toml").unlink()
    (tmp_path / "models.toml").mkdir()
    with pytest.raises(rk.RequestError, match=r"models\.toml cannot be read: .*directory"):
        len(Table("model", ModelSpec))


@pytest.mark.parametrize(
    "given",
    ["x" * 5000, 10**5000, list(range(5000)), {"a": ["b" * 5000] * 5000}],
    ids=["words", "number", "list", "mapping"],
)
def test_an_error_repeats_little_of_what_was_given(given):
    assert len(shown(given)) <= 80
    with pytest.raises(rk.RequestError) as error:
        find(rk.SAMPLERS, given)
    assert len(str(error.value)) < 200


def test_a_catalogue_that_is_set_after_first_use_counts(tmp_path, monkeypatch):
    assert "mine" not in rk.MODELS and "Mine" not in rk.SAMPLERS
    (tmp_path / "models.toml").write_text('["mine"]\nsource = "package:base"\n')
    (tmp_path / "samplers.toml").write_text(
        '["Mine"]\nsolver = "euler"\ncalls = "n"\norder = 1\npaper = "x"\nreference = "x"\n'
        'schedules = ["uniform", "karras"]\n'
    )
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    assert find(rk.MODELS, "mine") == "mine" and "Mine Karras" in rk.SAMPLERS
    monkeypatch.delenv("REALKIT_CATALOG")
    assert "mine" not in rk.MODELS and "Mine Karras" not in rk.SAMPLERS


def test_an_added_entry_stays_when_the_catalogue_changes(tmp_path, monkeypatch):
    table = Table("model", ModelSpec)
    table.add("own", ModelSpec(source="package:base"))
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    assert "own" in table and "rehearsal/base" in table
