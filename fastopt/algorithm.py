"""What a class of optimizers is: its rules, its defaults, its kernel."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from fastopt import modifiers
from fastopt.declaration import check_declaration
from fastopt.engine import MatrixRule, Rule, compile_kernel
from fastopt.hyperparameters import check_value


class Algorithm:
    """What holds for a class of optimizers, and not for one of them alone."""

    #: The scalar rule. A class with several overrides :meth:`choose_rule` instead.
    rule: ClassVar[Rule]
    #: Hyperparameters and their defaults: by default those of the signature of ``__init__``.
    defaults: ClassVar[Mapping[str, Any]] = {}
    #: What must be off for gradients to be :class:`fastopt.Rows`. None: they cannot be.
    rows_without: ClassVar[tuple[str, ...] | None] = None
    #: Whether all gradients must be given so.
    rows_only: ClassVar[bool] = False
    #: Whether parameters may be of half precision.
    takes_halves: ClassVar[bool] = True
    #: Whether they may be on a CUDA device, if their rules are scalar ones.
    takes_device: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "defaults" not in cls.__dict__ and "__init__" in cls.__dict__:
            parameters = list(inspect.signature(cls.__init__).parameters.values())[2:]
            cls.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        if "rule" in cls.__dict__:
            check_declaration(cls.__name__, cls.rule, cls.defaults)

    @classmethod
    def _known_defaults(cls) -> dict[str, Any]:
        return {**cls.defaults, "maximize": False, **modifiers.DEFAULTS}

    @classmethod
    def choose_rule(cls, group: Mapping[str, Any]) -> Rule:
        """Return the rule that a group's hyperparameters ask for."""
        if not hasattr(cls, "rule"):
            raise TypeError(f"{cls.__name__} has no rule; use one of its subclasses, or write one")
        return cls.rule

    @classmethod
    def rule_for(cls, group: Mapping[str, Any], shape: tuple[int, ...]) -> Rule | MatrixRule:
        """Return the rule of an array of a group: by default the group's, whatever the shape."""
        return cls.choose_rule(group)

    @classmethod
    def _rule_of(cls, group: Mapping[str, Any], shape: tuple[int, ...]) -> Rule | MatrixRule:
        """Return the rule of an array, with the modifiers that its group asks for."""
        return cls._modified(cls.rule_for(group, shape), group)

    @classmethod
    def _modified(cls, rule: Rule | MatrixRule, group: Mapping[str, Any]) -> Rule | MatrixRule:
        return modifiers.modified(rule, group, cls.__name__)

    @classmethod
    def initial_state(cls, group: Mapping[str, Any]) -> Mapping[str, float | str]:
        """Return the values that state starts with, where that is not zero; "params" is a copy of them."""
        return {}

    @classmethod
    def kernel(cls, **hyperparameters: Any) -> Callable[..., None]:
        """Return the compiled update, to be called from one's own ``@njit`` code.

        Parameters
        ----------
        **hyperparameters
            Defaults of the kernel that differ from the class's. They also choose among the rules of a
            class that has several: ``SGD.kernel(momentum=0.9, nesterov=True)``.

        Returns
        -------
        callable
            ``kernel(p, g, *state, *carry, step, *hyperparameters)``: updates 1-D arrays of one size and dtype
            in place. ``step`` is the number of the update, from 1. ``help(kernel)`` shows the names.

        Examples
        --------
        >>> import numba, numpy as np, fastopt
        >>> adam = fastopt.Adam.kernel(lr=0.1)
        >>> @numba.njit
        ... def minimize(w, steps):
        ...     m, v = np.zeros_like(w), np.zeros_like(w)
        ...     for step in range(1, steps + 1):
        ...         adam(w, 2 * w, m, v, step)  # the gradient of sum(w**2)
        >>> w = np.ones(3)
        >>> minimize(w, 200)
        >>> bool(abs(w).max() < 1e-3)
        True
        """
        known = cls._known_defaults()
        values = {
            name: check_value(name, hyperparameters.get(name, default), default, schedule=False)
            for name, default in known.items()
        }
        for name in hyperparameters.keys() - values.keys():
            raise TypeError(f"{cls.__name__} has no hyperparameter {name!r}; it has {', '.join(known)}")
        rule = cls._modified(cls.choose_rule(values), values)
        modifiers.check_kernel(rule, values)
        if isinstance(rule, MatrixRule):
            raise TypeError(f"{cls.__name__} has no kernel: it works on matrices, in NumPy")
        return compile_kernel(rule, tuple(values[name] for name in rule.hyperparameters))

    @classmethod
    def check_rows(cls, group: Mapping[str, Any], rule: Rule | MatrixRule, place: str) -> None:
        """Raise an error that names ``place`` unless the gradients of a group's array can be rows."""
        if cls.rows_without is None or isinstance(rule, MatrixRule) or rule.measure is not None:
            raise TypeError(f"{place} cannot be Rows: {cls.__name__} takes whole arrays only")
        for name in (*cls.rows_without, *modifiers.NOT_BY_ROWS):
            if group[name] != modifiers.DEFAULTS.get(name, 0.0):
                raise ValueError(
                    f"{place} cannot be Rows: {cls.__name__} takes them without {name} only, "
                    f"got {name}={group[name]!r}"
                )
