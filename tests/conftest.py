import gc

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Have one process do all tests of an algorithm, which compiles its kernels once, or else those of a file.

    Not by marks: with pytest 9.2, xdist 3.8 distributes the tests as if there were none (its issue 1386).
    """
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    from tests.algorithms.cases import BY_ID

    class ByAlgorithm(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, name = nodeid.partition("::")
            for given in name.partition("[")[2].rstrip("]").split("-"):
                if given in BY_ID:
                    return BY_ID[given].cls.__name__
            file = path.rpartition("/")[2]
            return nodeid if file in _IN_PROCESSES_OF_THEIR_OWN or "parity" in file else path

    return ByAlgorithm(config, log)


#: Files whose tests share no kernels, and take seconds each: they come last, and fill up what is left.
_IN_PROCESSES_OF_THEIR_OWN = {"test_cache.py", "test_threads.py", "test_background.py"}


def pytest_collection_finish(session):
    """Look for garbage less often: among all that Numba keeps, that took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_collection_modifyitems(config, items):
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
    if "cuda" in item.path.parts:  # it has no other pass
        return False
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
