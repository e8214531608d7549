"""fastopt's algorithms as torch optimizers, for models on the CPU or on a CUDA device.

Each class of fastopt is here under its name, as a subclass of :class:`torch.optim.Optimizer` with the same
arguments: closures, parameter groups, hooks, learning rate schedulers, ``state_dict`` and ``zero_grad`` are
torch's. Parameters, gradients and state are never copied: fastopt updates torch's memory.

See :class:`TorchOptimizer` for what holds for all of them.

>>> import torch  # doctest: +SKIP
>>> import fastopt.adapters.torch  # doctest: +SKIP
>>> model = torch.nn.Linear(3, 2)  # doctest: +SKIP
>>> opt = fastopt.adapters.torch.Lion(model.parameters(), lr=1e-4)  # doctest: +SKIP
>>> model(torch.ones(1, 3)).sum().backward()  # doctest: +SKIP
>>> opt.step()  # doctest: +SKIP
"""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

from fastopt import algorithms
from fastopt.adapters._torch_core import host
from fastopt.adapters._torch_lbfgs import TorchLBFGS
from fastopt.adapters._torch_optimizer import TorchOptimizer
from fastopt.optimizer import Optimizer

__all__ = ["TorchOptimizer", "adapt", *algorithms.__all__]


@cache
def adapt(algorithm: type[Optimizer]) -> Any:
    """Return an optimizer of fastopt as a class of torch optimizers: for those that you wrote yourself.

    Parameters
    ----------
    algorithm : type
        A subclass of :class:`fastopt.Optimizer`.

    Returns
    -------
    type
        A subclass of :class:`TorchOptimizer` and of ``torch.optim.Optimizer``; the same one each time. It
        takes the parameters as torch does, and the arguments of ``algorithm``.

    Raises
    ------
    TypeError
        If it is no such class.
    ImportError
        If torch is not installed.
    """
    if not (isinstance(algorithm, type) and issubclass(algorithm, Optimizer)):
        raise TypeError(f"algorithm must be a subclass of fastopt.Optimizer, got {algorithm!r}")
    methods = TorchLBFGS if issubclass(algorithm, algorithms.LBFGS) else TorchOptimizer
    own = algorithm.__name__ in algorithms.__all__ and getattr(algorithms, algorithm.__name__) is algorithm
    return type(
        algorithm.__name__,
        (methods, host().optim.Optimizer),
        {
            "__module__": __name__ if own else algorithm.__module__,
            "__qualname__": algorithm.__name__ if own else algorithm.__qualname__,
            "__doc__": _documented(algorithm),
            "__signature__": inspect.signature(algorithm),
            "__reduce_ex__": _reduce_ex,
            # In a function that is compiled, dynamo would put torch's NumPy in the place of ours.
            "step": host().compiler.disable(methods.step),
            "algorithm": algorithm,
        },
    )


def __getattr__(name: str) -> Any:
    if name in algorithms.__all__:
        return adapt(getattr(algorithms, name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _documented(algorithm: type[Optimizer]) -> str:
    """Return the docstring of an algorithm as that of its adapter."""
    before = re.split(r"\nExamples\n-+\n", inspect.getdoc(algorithm) or "")[0]
    return re.sub(r"(?m)^params : .*\n(    .*\n)+", _PARAMS, before, count=1)


_PARAMS = """params : iterable of Tensor, of (str, Tensor), or of dict
    What to update in place, as for torch.optim; see :class:`fastopt.adapters.torch.TorchOptimizer`.
"""


def _reduce_ex(self: Any, protocol: Any) -> Any:
    """Pickle an adapter by its class of fastopt: that of one that a user wrote has no name of its own."""
    if type(self) is not adapt(self.algorithm):  # a subclass of it
        return object.__reduce_ex__(self, protocol)
    return _blank, (self.algorithm,), self.__getstate__()


def _blank(algorithm: Any) -> Any:
    cls = adapt(algorithm)
    return cls.__new__(cls)
