"""What the adapters for torch have in common: fastopt's classes as torch.optim.Optimizer."""

from __future__ import annotations

import copy
import inspect
import operator
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, ClassVar

from fastopt.adapters._torch_core import TensorCore, array_of, check_devices, core_class, host, plain
from fastopt.adapters._torch_peer import (
    IGNORED,
    REFUSED,
    check_as_torch_does,
    check_fixed,
    torch_defaults,
    translate,
)
from fastopt.adapters._torch_state import OWN, StateViews, leaves_of, load, numbers, own_part
from fastopt.optimizer import Optimizer
from fastopt.options import StepOptions
from fastopt.overrides import OPTIONS


class TorchOptimizer:
    """What the classes of :mod:`fastopt.adapters.torch` share. They are ``torch.optim.Optimizer`` too.

    Parameters
    ----------
    params : iterable of Tensor, of (str, Tensor), or of dict
        What to update, as for torch.optim: ``model.parameters()``, ``model.named_parameters()`` or parameter
        groups. Dense tensors of float32 or float64, all on the CPU, or all on one CUDA device and contiguous.
    *args, **options
        As for the class of fastopt. A hyperparameter may be a schedule of fastopt, unless a scheduler of
        torch sets it. ``no_decay``, ``frozen`` and ``overrides`` go by the names of ``named_parameters()``:
        ``no_decay="*.bias"``. ``foreach`` and ``fused`` are taken, and change nothing.

    Attributes
    ----------
    algorithm : type
        The class of fastopt.
    param_groups : list of dict
        As in torch. A scheduler, or whoever else, may set their values; they count from the next step on.

    Raises
    ------
    TypeError, ValueError
        If a parameter or an argument is not what it can be. Where torch has the class, with torch's message.

    Notes
    -----
    Parameters, gradients and state are updated in torch's memory. What of a tensor is not contiguous is
    copied to a buffer and back, in each step. Gradients that are None leave their parameter and its state
    as they are. Sparse gradients, of ``nn.Embedding(sparse=True)``, are for SGD, Adagrad, RMSprop, SparseAdam
    and FTRL, under the conditions in the notes of these classes.

    On a CUDA device, the steps are taken on torch's current stream, and the state is on the device. Muon,
    SOAP, Adafactor, SparseAdam, LBFGS and sparse gradients are for the CPU. A model that is moved takes its
    optimizer with it, at the next step.

    Other than torch.optim: ``capturable`` and ``differentiable`` are refused; a parameter that occurs twice
    in a group is updated once; two that share memory are refused; what is in ``state`` cannot be exchanged,
    only written to; parameters cannot be taken out of ``param_groups``. Checkpoints are those of torch,
    with an additional entry, and go both ways. Muon updates also what is no matrix, as its notes say.

    A tensor may be given other memory (``param.data = ...``), for the price of a copy of the state, but no
    other dtype or shape: then make a new optimizer. ``torch.compile`` leaves a step as it is.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> import fastopt.adapters.torch  # doctest: +SKIP
    >>> model = torch.nn.Linear(3, 2)  # doctest: +SKIP
    >>> opt = fastopt.adapters.torch.AdamW(model.named_parameters(), no_decay="bias")  # doctest: +SKIP
    >>> scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=10)  # doctest: +SKIP
    >>> model(torch.ones(1, 3)).sum().backward()  # doctest: +SKIP
    >>> opt.step()  # doctest: +SKIP
    """

    #: The class of fastopt that does the work.
    algorithm: ClassVar[Any]

    defaults: dict[str, Any]
    param_groups: list[dict[str, Any]]
    _core: TensorCore
    _ready = False

    def __init__(self, params: Any, *args: Any, **options: Any) -> None:
        given = self._given(args, options)
        for name, why in REFUSED.items():
            if options.get(name):
                raise ValueError(f"{type(self).__name__} takes no {name}={options[name]!r}: {why}")
        for name, value in given.items():
            if isinstance(value, host().Tensor) and value.numel() != 1:
                raise ValueError(f"Tensor {name} must be 1-element")
        flags = {name: options[name] for name in (*IGNORED, *REFUSED) if name in options}
        check_as_torch_does(self.algorithm, {**given, **flags})
        values = {**self._group_defaults(), **given}
        defaults = {name: value for name, value in values.items() if name not in StepOptions.names}
        super().__init__(params, {**torch_defaults(self.algorithm), **flags, **defaults})  # type: ignore[call-arg]
        check_devices(self.param_groups)
        groups = [self._described(i, group) for i, group in enumerate(self.param_groups)]
        in_groups = self.algorithm._known_defaults()
        others = {name: plain(value) for name, value in given.items() if name not in in_groups}
        self._begin(core_class(self.algorithm)(groups, **others))

    @classmethod
    def _given(cls, args: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was given for fastopt beside the parameters, by name."""
        own = {name: value for name, value in options.items() if name not in (*IGNORED, *REFUSED)}
        signature = inspect.signature(cls.algorithm)
        found = dict(signature.bind(None, *args, **own).arguments)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                found.update(found.pop(parameter.name, {}))
        del found[next(iter(signature.parameters))]
        return found

    @classmethod
    def _group_defaults(cls) -> dict[str, Any]:
        """Return what is in every parameter group, and its default."""
        return {**cls.algorithm.defaults, "maximize": False}

    def _described(self, number: int, group: dict[str, Any]) -> dict[str, Any]:
        """Return a parameter group for fastopt; what chooses single arrays is taken out of torch's."""
        translate(group)
        values = numbers(group, self.algorithm._known_defaults())
        chosen = {name: group.pop(name) for name in OPTIONS if name in group}
        return {"params": self._arrays(number, group), **values, **chosen}

    def _arrays(self, number: int, group: Mapping[str, Any]) -> Any:
        """Return the parameters of a group as arrays: by name if they have names, else in a list."""
        place = f"param_groups[{number}]['params']"
        found = {  # torch warns of one that occurs twice
            id(param): array_of(param, f"{place}[{i}]", self.algorithm.__name__)
            for i, param in enumerate(group["params"])
        }
        names = group.get("param_names", ())
        if len(set(names)) == len(found):
            return dict(zip(names, found.values(), strict=True))
        return list(found.values())

    def _begin(self, core: TensorCore) -> None:
        """Take the optimizer that does the work, of the parameters as they are now."""
        self._core = core
        self._params = [
            param
            for group in self.param_groups
            for param in {id(param): param for param in group["params"]}.values()
        ]
        self._listed = [param for group in self.param_groups for param in group["params"]]
        self._addresses = [*map(host().Tensor.data_ptr, self._params)]
        self._views = StateViews(core, self._params)
        self._known = tuple(core._known_defaults())
        self._seen: list[list[Any]] = [[] for _ in self.param_groups]
        self._stale = self._ready = True

    @property
    def fastopt(self) -> Optimizer:
        """The optimizer of fastopt that does the work.

        For what torch has no name for: ``grad_norm``, ``averages()``, ``averaged_parameters()``,
        ``skipped_nonfinite``; for CUDA graphs, ``prepare_step(grads)`` and ``launch_step()``. It works on the
        same memory. Other steps are taken by :meth:`step`.
        """
        self._prepare()
        self._stale = True
        return self._core

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, as torch does; "no_decay", "frozen" and "overrides" are fastopt's.

        Parameters
        ----------
        param_group : dict
            "params", and those hyperparameters that differ from the optimizer's.

        Raises
        ------
        TypeError, ValueError
            As at construction. Nothing is added then.
        """
        super().add_param_group(param_group)  # type: ignore[misc]
        if not self._ready:  # torch adds those that it is made with
            return
        try:
            self._prepare(added=1)
            check_devices(self.param_groups)
            self._core.add_param_group(self._described(len(self.param_groups) - 1, param_group))
        except BaseException:
            del self.param_groups[-1]
            raise
        self._begin(self._core)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters once, in place.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients anew, and returns the loss.

        Returns
        -------
        What ``closure`` returned; None without one.

        Raises
        ------
        TypeError, ValueError
            If a gradient or a hyperparameter of a group is not what it can be. Nothing is written then.
        """
        loss = None
        if closure is not None:
            with host().enable_grad():
                loss = closure()
        self._prepare()
        self._stale = True
        self._core.step([param.grad for param in self._params])
        self._written()
        return loss

    def _written(self) -> None:
        """Tell autograd that the parameters have changed, so that it notices graphs that are out of date."""
        host().autograd.graph.increment_version(self._params)

    def _prepare(self, added: int = 0) -> None:
        """Take note of what has changed: hyperparameters, or the memory of the parameters."""
        groups = self.param_groups[: len(self.param_groups) - added]
        listed = [param for group in groups for param in group["params"]]
        if len(listed) != len(self._listed) or not all(map(operator.is_, listed, self._listed)):
            raise ValueError(
                "the parameters in param_groups have been exchanged: add_param_group() adds some; for "
                "others, make a new optimizer"
            )
        if [*map(host().Tensor.data_ptr, self._params)] != self._addresses:
            self._renew()
        for group, own, i in zip(groups, self._core.param_groups, range(len(groups)), strict=True):
            values = [group.get(name, _MISSING) for name in self._known]
            if any([type(value) not in _PLAIN for value in values]):  # noqa: C419
                values = [plain(value) for value in values]
            seen = self._seen[i]
            if values != seen:
                for name, value in zip(self._known, values, strict=True):
                    if value is not _MISSING and value != own[name]:
                        own[name] = value
                self._seen[i] = values

    def _renew(self) -> None:
        """Go on with parameters whose tensors have been given other memory, as by ``param.data = ...``."""
        leaves = leaves_of(self._core)
        for param, leaf in zip(self._params, leaves, strict=True):
            if (str(param.dtype), tuple(param.shape)) != (f"torch.{leaf.dtype}", leaf.shape):
                raise ValueError(
                    f"{leaf.place} was of {leaf.dtype} and {leaf.shape} when the optimizer was made, and "
                    f"is of {param.dtype} and {tuple(param.shape)} now; make a new optimizer"
                )
        self._restore(self._core.__getstate__())

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Make the optimizer that does the work anew, from its state, for the parameters as they are."""
        check_devices(self.param_groups)
        core = object.__new__(core_class(self.algorithm))
        params = [self._arrays(i, group) for i, group in enumerate(self.param_groups)]
        core.__setstate__({**state, "params": params})
        self._begin(core)

    @property
    def state(self) -> Any:
        """The state of each parameter by name, as torch has it: tensors, views of what fastopt updates.

        They may be written to; to put others in their place, call :meth:`load_state_dict`. "step" is as of
        the last time that ``state`` was asked for.
        """
        if self._ready and self._stale:
            self._refresh()
            self._stale = False
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        if not self._ready:
            self._state = value
            return
        self._load(self.param_groups, [value.get(param, {}) for param in self._params], None)

    def _refresh(self) -> None:
        self._views.refresh(self._state)

    def state_dict(self) -> dict[str, Any]:
        """Return the state in torch's form: "state", by the numbers of the parameters, and "param_groups".

        Under "fastopt" is what torch has no place for: the state of options, and the number of steps.
        ``torch.optim`` loads it, if it has the algorithm. As in torch, the tensors are not copied.

        Returns
        -------
        dict
            Of dicts, lists, numbers and tensors. Schedules of fastopt are functions and are left out.
        """
        self._prepare()
        found: dict[str, Any] = super().state_dict()  # type: ignore[misc]
        found["param_groups"] = [
            {name: value for name, value in group.items() if not callable(value)}
            for group in found["param_groups"]
        ]
        found[OWN] = own_part(self._core)
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, or that of the class of this name in torch.optim.

        As in torch, parameters are matched by their order, and all of a group is replaced but its parameters
        and its schedules of fastopt. The tensors are copied.

        Parameters
        ----------
        state_dict : dict
            The state.

        Raises
        ------
        TypeError, ValueError
            If it does not fit; the message says in what. Nothing is changed then.
        """
        saved = dict(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():  # type: ignore[attr-defined]
            changed = hook(self, saved)
            if changed is not None:
                saved = changed
        groups = [copy.deepcopy(dict(group)) for group in saved["param_groups"]]
        if len(groups) != len(self.param_groups):
            raise ValueError(
                f"loaded state dict has a different number of parameter groups: {len(groups)}, and the "
                f"optimizer has {len(self.param_groups)}"
            )
        for i, (own, group) in enumerate(zip(self.param_groups, groups, strict=True)):
            if len(own["params"]) != len(group["params"]):
                raise ValueError(
                    f"loaded state dict contains a parameter group that doesn't match the size of "
                    f"optimizer's group: param_groups[{i}] has {len(group['params'])} parameters, and the "
                    f"optimizer's {len(own['params'])}"
                )
            check_fixed(self.algorithm, group, i)
        numbered = chain.from_iterable(group["params"] for group in groups)
        keys = {id(param): key for param, key in zip(self._listed, numbered, strict=True)}
        entries = [saved["state"].get(keys[id(param)]) or {} for param in self._params]
        for own, group in zip(self.param_groups, groups, strict=True):
            kept = {name: value for name, value in own.items() if name not in group or callable(value)}
            group.update(kept, params=own["params"])
            translate(group)
        self._load(groups, entries, saved.get(OWN))
        for hook in self._optimizer_load_state_dict_post_hooks.values():  # type: ignore[attr-defined]
            hook(self)

    def _load(
        self, groups: list[dict[str, Any]], entries: list[Mapping[str, Any]], own: Mapping[str, Any] | None
    ) -> None:
        """Take over groups, the state of each parameter, and what fastopt has beside."""
        self._prepare()
        hyperparameters = [
            {
                name: value
                for name, value in numbers(group, self._core._known_defaults()).items()
                if not callable(value)
            }
            for group in groups
        ]
        load(self._core, hyperparameters, entries, own, self._more(groups, entries))
        self.param_groups = groups
        self._state = defaultdict(dict)
        self._begin(self._core)

    def _more(self, groups: list[dict[str, Any]], entries: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what the class has in its state dict beside what all classes have."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        self._prepare()
        state = {**self._core.__getstate__(), "params": None}
        return {"defaults": self.defaults, "param_groups": self.param_groups, "core": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        given = {name: state[name] for name in ("defaults", "param_groups")}
        super().__setstate__(given)  # type: ignore[misc]
        self._state = defaultdict(dict)
        self._restore(state["core"])


_MISSING = object()
_PLAIN = frozenset({float, int, bool, type(None), object, str})
