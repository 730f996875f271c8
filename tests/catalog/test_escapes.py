from __future__ import annotations

import pytest

from rexbert_hf.catalog.escapes import unescape


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"Nescafe \xc3\x89clair", "Nescafe \u00c9clair"),
        (r"\xf0\x9f\x87\xb2 jam", "\U0001f1f2 jam"),
        (r"isn\u2019t", "isn\u2019t"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\xff\xfe", r"\xff\xfe"),
        (r"\ud83d alone", r"\ud83d alone"),
        (r"C:\temp \n", r"C:\temp \n"),
        ("plain", "plain"),
    ],
)
def test_escapes_become_the_characters_they_stand_for(written, meant):
    assert unescape(written) == meant
