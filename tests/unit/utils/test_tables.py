"""Tables as text."""

from genesis_rl.utils.tables import as_text


def test_columns_are_aligned() -> None:
    one = {"caption": "Rates", "head": ["", "1/s"], "rows": [["train", "17.3"], ["encode", "9"]]}
    two = {"caption": "", "head": ["a"], "rows": [["bc"]]}
    assert as_text([one, two]) == ("Rates\n       |  1/s\ntrain  | 17.3\nencode |    9\n\na\nbc")
