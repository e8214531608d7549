"""Are the answers of the steps in fewer bytes right? See lowprec.py."""

import lowprec
import pytest
from lowprec import Kind


def test_answers():
    pytest.importorskip("ml_dtypes")
    assert lowprec.kinds() == lowprec.KINDS
    lowprec.check()


def test_wrong_answers_are_refused(monkeypatch):
    monkeypatch.setattr(
        lowprec, "kinds", lambda: {"float32": Kind(28, 0.0, {}), "other": Kind(28, 0.1, {"maximize": True})}
    )
    with pytest.raises(AssertionError, match=r"^other: off by "):
        lowprec.check()
