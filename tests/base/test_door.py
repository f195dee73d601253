"""Arguments at the door of what people call."""

import pytest

import realkit as rk
from realkit.models.model import Model


@pytest.mark.parametrize(
    ("function", "given", "wrong", "meant"),
    [
        (Model.__call__, (None, "a"), "cfg", "guidance"),
        (rk.run, ("s", "out"), "bugdet", "budget"),
        (rk.compare, ("df",), "withn", "within"),
    ],
)
def test_a_mistyped_keyword_suggests_the_one_that_is_meant(function, given, wrong, meant):
    with pytest.raises(rk.RequestError, match=f"'{wrong}'.* Did you mean '{meant}'[?] Expected "):
        function(*given, **{wrong: 1})


def test_a_keyword_like_no_other_is_refused_without_a_guess():
    with pytest.raises(rk.RequestError, match=r"'zzz'\. Expected"):
        rk.compare("df", zzz=1)
