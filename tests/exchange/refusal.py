"""What is refused, with the text of the error."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def refused(error: type[Exception], message: str) -> Iterator[None]:
    """Expect an error with exactly this text."""
    with pytest.raises(error) as caught:
        yield
    assert str(caught.value) == message
