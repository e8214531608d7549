import numba
import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    if numba.config.DISABLE_JIT:  # NumPy's scalars warn of what arrays and compiled code do silently
        for what in ("overflow", "underflow", "invalid value", "divide by zero"):
            for where in ("scalar", "cast"):
                ignored = f"ignore:{what} encountered in {where}:RuntimeWarning"
                config.addinivalue_line("filterwarnings", ignored)


def pytest_collection_modifyitems(config, items):
    """Have one process do all tests of a case, which compiles its kernels once; see also ``_leave_out``."""
    for item in items:
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if hasattr(given.get("case"), "cls"):
            item.add_marker(pytest.mark.xdist_group(given["case"].id))
    _leave_out(config, items)


def _leave_out(config, items):
    """With the JIT off, which is for coverage, leave out what is compiled, and repetitions that are slow."""
    if not numba.config.DISABLE_JIT:
        return
    kept, left_out = [], []
    for item in items:
        if item.get_closest_marker("jit"):
            item.add_marker(pytest.mark.skip(reason="needs compiled code"))
        (left_out if _repeats(item) else kept).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


#: Files whose tests run rules without the engine anyway, or run the lines that others do very often.
_OTHERWISE_COVERED = {"test_mutants.py", "test_properties.py", "test_kernels.py"}


def _repeats(item) -> bool:
    """Tell whether a test runs lines that others do: it is of another case of a class, or of float64."""
    if item.path.name in _OTHERWISE_COVERED or "parity" in item.path.name:
        return True
    given = item.callspec.params if hasattr(item, "callspec") else {}
    case = given.get("case")
    if not hasattr(case, "cls"):
        return False
    if given.get("dtype") == "float64":
        return True
    if item.path.name == "test_reference.py":
        return False
    from tests.algorithms.cases import CASES

    return case is not next(each for each in CASES if each.cls is case.cls)
