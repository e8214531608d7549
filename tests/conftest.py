import numba
import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    if numba.config.DISABLE_JIT:  # NumPy's scalars warn of what arrays and compiled code do silently
        for what in ("overflow", "underflow", "invalid value", "divide by zero"):
            ignored = f"ignore:{what} encountered in scalar:RuntimeWarning"
            config.addinivalue_line("filterwarnings", ignored)


def pytest_collection_modifyitems(items):
    if numba.config.DISABLE_JIT:
        for item in items:
            if item.get_closest_marker("jit"):
                item.add_marker(pytest.mark.skip(reason="needs compiled code"))
