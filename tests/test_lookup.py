import pytest

import realkit as rk
from realkit.lookup import find


@pytest.mark.parametrize("typed", ["DPM++ 2M Karras", "dpm++ 2m karras", "DPM++2M_Karras", "dpm 2m karras"])
def test_case_spaces_and_punctuation_do_not_matter(typed):
    assert find(rk.SAMPLERS, typed) == "DPM++ 2M Karras"


def test_every_sampler_keeps_a_name_of_its_own_when_folded():
    assert {find(rk.SAMPLERS, name.lower().replace(" ", "-")) for name in rk.SAMPLERS} == set(rk.SAMPLERS)


def test_unknown_name_says_what_was_meant_and_how_many_there_are():
    with pytest.raises(rk.RequestError) as error:
        find(rk.SAMPLERS, "DPM 2M Karas")
    assert str(error.value) == (f"Unknown sampler 'DPM 2M Karas'. Did you mean 'DPM++ 2M Karras'? {len(rk.SAMPLERS)} available: realkit list samplers")


def test_tables_are_read_only():
    with pytest.raises(TypeError):
        rk.SAMPLERS["Mine"] = None
    with pytest.raises(ValueError):
        rk.SAMPLERS["Euler"].order = 3


def test_a_users_file_adds_entries(tmp_path, monkeypatch):
    from realkit.lookup import Table
    from realkit.models import ModelSpec

    (tmp_path / "models.toml").write_text('["mine"]\nsource = "package:base"\nsize = 256\n')
    monkeypatch.setenv("REALKIT_CATALOG", str(tmp_path))
    table = Table("model", ModelSpec)
    assert table["mine"].size == 256 and "rehearsal/base" in table
    (tmp_path / "models.toml").write_text('["mine"]\nsource = "x"\nsizes = 3\n')
    with pytest.raises(rk.RequestError, match=r"models\.toml cannot be read: sizes: Extra inputs"):
        len(Table("model", ModelSpec))
