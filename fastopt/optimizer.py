"""What every algorithm shares: groups, hyperparameters, the step, state."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from fastopt.arrangement import Arrangement
from fastopt.background import PendingStep
from fastopt.checkpoint import expect_keys
from fastopt.device_steps import DeviceSteps
from fastopt.grad_scaler import GradScaler
from fastopt.gradients import clear, clear_rest
from fastopt.grouped import is_group
from fastopt.guard import combined
from fastopt.hyperparameters import check_value
from fastopt.options import Options, StepOptions
from fastopt.packing import Pack

__all__ = ["Optimizer", "Options"]


class Optimizer(DeviceSteps):
    r"""Updates parameters in place. The base of all algorithms, and of a user's own.

    A subclass states its rule and its defaults; see the example.

    Parameters
    ----------
    params : array, tree of arrays, Pack, or list of dict
        What to update, always in place. A tree is a dict, list or tuple of float32 or float64 arrays, or of
        float16 or ml_dtypes' bfloat16, which are computed in float32; nested. A list of dicts with a
        key "params" makes groups, each with hyperparameters of its own.
        Arrays of other libraries that are in the CPU's memory and writeable (``__array_interface__``,
        ``__dlpack__``) are updated in place too. If they are on a CUDA device, and contiguous
        (``__cuda_array_interface__``: CuPy's, torch's, Numba's), so is the state, and the steps are taken
        there, on the stream that is the current one of their library. All must be in one place then.
    threads : int, optional
        The most threads that a step may use. By default all CPUs that the process may use
        (``FASTOPT_NUM_THREADS`` sets another number). Steps that fit into the cache use one.
        The result is the same, bit for bit, for any number.
    maximize : bool
        Ascend instead of descend.
    no_decay : str, callable, or list of such, optional
        The arrays that have no weight decay: a pattern of names, such as ``"*.b"``, a function
        ``(name, array) -> bool``, or several of them. The name of an array is the way to it in its tree, with
        dots: ``"layers.0.w"``; that of a sole array is empty. ``*`` stands for anything, dots too.
    frozen : str, callable, or list of such, optional
        The arrays that are never updated. They have no state, and their gradients are ignored.
    overrides : dict, optional
        Hyperparameters of some arrays only: ``{"head.*": {"lr": 1e-2}}``, by patterns, functions, or tuples
        of such. There are two more: ``lr_scale`` multiplies the learning rate, whatever it is in a step, and
        ``frozen`` is True or False. Later entries win over earlier ones, and over ``no_decay``,
        ``frozen`` and the groups. A group can have all three options, which then count after
        the optimizer's. They are settled when a group is added: see its ``overrides``.
    max_grad_value : float or schedule, optional
        Clip each element of the gradient to within plus and minus this, after it was divided by its scale
        and clipped by its norm. NaN stays NaN. By default, none.
    cautious : bool
        Leave out the steps of those elements whose step and gradient disagree in sign, and enlarge the
        others of their array by the share that is left, at most a thousandfold [1]_.
    cautious_weight_decay : bool
        Let the decoupled weight decay act only where step and decay have one sign [2]_.
    corrected_weight_decay : float or schedule
        The greatest learning rate of the schedule, :math:`\eta_{max}`: the weight decay is multiplied by
        :math:`\eta_t / \eta_{max}` (AdamC, for layers that are followed by a normalization) [3]_. 0 for none.
    ema_decay : float or schedule
        Keep an exponential average of the parameters in the state ``ema``: its share that is kept at each
        step. It starts with the parameters, and is taken before Lookahead sets them back. 0 for none. See
        :meth:`averages` and :meth:`averaged_parameters`.
    ema_warmup : bool
        In step :math:`t` of an array, keep no more than :math:`(1 + t) / (10 + t)`, so that the average soon
        forgets where it started: TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``.
    swa_start : int, optional
        Stochastic weight averaging [5]_: after so many steps of an array, keep the mean of its parameters
        in the state ``swa``. In a loop over ``range(n)``, those count that are there after the steps
        ``i >= swa_start``, before Lookahead sets them back. By default, none.
    swa_every : int
        How many steps from one that counts to the next.
    lookahead_steps : int
        Lookahead [4]_: after so many steps of an array, its slow copy, the state ``slow``, moves towards the
        parameters, and they are set back to it. 0 for none.
    lookahead_alpha : float or schedule
        How far the slow copy moves, from 0 to 1.
    max_grad_norm : float or schedule, optional
        Clip the gradients to this norm, that of all groups together: where it is greater, all are multiplied
        by ``max_grad_norm / (norm + 1e-6)``, as by torch.nn.utils.clip_grad_norm_. ``math.inf`` clips
        nothing, and still makes :attr:`grad_norm` known.
    grad_norm_over : {"all", "tensor"}
        With "tensor", each array is clipped by its own norm.
    skip_nonfinite : bool
        Leave out a step if a gradient is not finite: nothing is written, and no step is counted. On a
        CUDA device schedules, and stochastic rounding, count it: the host does not wait to know of it.
        :attr:`skipped_nonfinite` counts them.
    skip_outliers : float, optional
        Leave out a step, likewise, if the norm of its gradients is more than so many standard deviations
        above the mean of the latest 128 norms, from when there are 64. :attr:`skipped_outliers` counts them.
    max_skips : int, optional
        How many steps in a row may be left out. One more raises a FloatingPointError.
    grad_scaler : GradScaler, optional
        Finds the scale of the loss, by which the gradients are divided. It implies ``skip_nonfinite``.
    accumulate : int
        Update once in so many steps, by the mean of their gradients. Those that are given to :meth:`step` are
        added up: in the gradients of the pack, else in buffers of their own. Those of a pack that are not
        given must be *added* to its gradients; from one update to the next, :meth:`zero_grad` does nothing.
    zero_grads : bool
        Set the gradients to zero in the same pass, those of the pack or those that are given; also
        if the step is left out.
    state_dtype : {None, "float32", "bfloat16", "float8"}
        How the state is stored: fewer bytes make a step faster, which is bound by memory. It is computed in
        float32 all the same, and rounded stochastically: up or down, so that the mean is right.
        "float8" has a float32 scale for each 256 elements. Arrays of fewer than 4096 elements keep
        float32, unless ``overrides`` name a ``state_dtype`` for them; so do averages of the parameters,
        and what else an algorithm needs exactly. By default the state is as exact as the parameters.
    master_weights : {None, "float32", "split"}
        What is kept of parameters of half precision beside them: nothing, they are rounded
        stochastically; a copy in float32, the state ``master_weights``, from which they are rounded; or the
        low bits, the state ``low_bits``, with which bfloat16 is as exact as float32.
    seed : int
        Of stochastic rounding, which depends on it, on the number of the step and on the element's place
        alone: not on the number of threads. It is in checkpoints.
    **hyperparameters
        Numbers, or schedules: functions of the number of steps already taken.

    Raises
    ------
    TypeError, ValueError
        If an array is of another dtype, is read-only, shares memory with another, or a
        hyperparameter is of another kind or out of range, or the algorithm cannot be modified as asked, or
        a pattern fits no name. The message names it.
    ModuleNotFoundError, RuntimeError
        If an array is on a CUDA device, and there is no package for CUDA, or no device that it can use.

    Notes
    -----
    In one step, the gradients are added up, divided by their scale, and looked at as a whole: a step that
    is to be left out ends here. Then they are clipped by their norm, then by their values, then the rule has
    them. Norms are added up in double, in one order for any number of threads.

    References
    ----------
    .. [1] Liang et al., Cautious Optimizers: Improving Training with One Line of Code, arXiv:2411.16085,
       2024.
    .. [2] Chen et al., Cautious Weight Decay, arXiv:2510.12402, 2025.
    .. [3] Defazio, Why Gradients Rapidly Increase Near the End of Training, arXiv:2506.02285, 2025.
    .. [4] Zhang et al., Lookahead Optimizer: k steps forward, 1 step back, arXiv:1907.08610, 2019.
    .. [5] Izmailov et al., Averaging Weights Leads to Wider Optima and Better Generalization,
       arXiv:1803.05407, 2018.

    Examples
    --------
    An optimizer of one's own. Numbers come in as arguments: a literal would be a double.

    >>> import math, numpy as np, fastopt
    >>> def signum(p, g, momentum_buffer, lr, momentum):
    ...     momentum_buffer = momentum * momentum_buffer + g
    ...     return p - math.copysign(lr, momentum_buffer), momentum_buffer
    >>> class Signum(fastopt.Optimizer):
    ...     rule = fastopt.Rule(signum, state=("momentum_buffer",))
    ...     defaults = {"lr": 1e-3, "momentum": 0.9}
    >>> w = np.ones(3, np.float32)
    >>> opt = Signum(w, lr=0.5)
    >>> opt.step(np.array([4, -1, 2], np.float32))
    >>> w
    array([0.5, 1.5, 0.5], dtype=float32)
    """

    defaults: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, params: Any, **options: Any) -> None:
        known = self._known_defaults()
        for name in options.keys() - known.keys() - StepOptions.names:
            every = ", ".join(sorted({*known, *StepOptions.names} - self.defaults.keys()))
            raise TypeError(
                f"{type(self).__name__} has no hyperparameter {name!r}; it has {', '.join(self.defaults)}; "
                f"and every optimizer has {every}"
            )
        step_options = StepOptions(**{name: options.pop(name) for name in StepOptions.names & options.keys()})
        chosen = {
            name: check_value(name, options.get(name, default), default) for name, default in known.items()
        }
        several = isinstance(params, list | tuple) and len(params) > 0 and all(map(is_group, params))
        self._begin(chosen, step_options, sole=not several)
        self._add_all(params if several else [{"params": params}])

    @property
    def step_count(self) -> int:
        """Number of steps taken."""
        self._turn.wait()
        self._pull()
        return self._count - self._skipped

    def step_async(
        self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0
    ) -> PendingStep:
        """Begin a step on a thread of the library's own, and return while it goes on.

        Until it is done, the gradients must stay as they are, and the parameters and the state are undefined:
        wait before you use them. Whatever else is done with the optimizer waits for it: another step,
        saving, a changed hyperparameter.

        Parameters
        ----------
        grads, lr, grad_scale
            As of :meth:`step`.

        Returns
        -------
        PendingStep
            Its ``wait()`` returns when the step is done, and raises what the step raised: all of its errors
            surface there, or where something else waits first.

        Examples
        --------
        >>> import numpy as np, fastopt
        >>> w = np.ones(3)
        >>> opt = fastopt.SGD(w, lr=0.5)
        >>> step = opt.step_async(np.ones(3))
        >>> batch = np.arange(6.0).reshape(2, 3)  # is prepared meanwhile
        >>> step.wait()
        >>> w
        array([0.5, 0.5, 0.5])
        """
        # On a device a step goes on by itself; its stream, and its device, are those of this thread.
        return self._turn.begin(partial(self.step, grads, lr=lr, grad_scale=grad_scale), here=self._on_device)

    def step(self, grads: Any = None, *, lr: float | None = None, grad_scale: float = 1.0) -> None:
        """Update all parameters once, in place.

        Parameters
        ----------
        grads : array, or tree of arrays in the structure of the parameters, optional
            The gradients, with the parameters' shapes and dtypes; or of float16 or bfloat16, unless these are
            of float64. None in the place of an array means that there is no gradient: its parameter and
            state stay as they are. :class:`fastopt.Rows` in its place are gradients of some rows only. What
            is in the place of a frozen array is ignored. With groups, a list of one tree a group. By
            default the gradients of the pack.
        lr : float, optional
            Learning rate of this step, in place of those of the groups and overrides; ``lr_scale`` still
            multiplies it.
        grad_scale : float
            What the gradients have been multiplied by (loss scaling), from 1e-37 to 1e37; they are divided
            by it.

        Raises
        ------
        TypeError, ValueError
            If the gradients do not fit the parameters, or an argument, or the value of
            a schedule, is out of range. Nothing is written then.
        FloatingPointError
            If more than ``max_skips`` steps in a row were left out.
        RuntimeError
            Inside :meth:`averaged_parameters`.
        """
        if self._on_device and self._stepping != threading.get_ident():
            self._turn.wait()
            step = partial(Optimizer.step, self, grads, lr=lr, grad_scale=grad_scale)
            self._step_on_stream(self._stream(grads), step)
            return
        self._require_parameters("step() cannot be called")
        options = self._options
        self._take_notes()
        if lr is not None:
            lr = self._checked_lr(lr)
        found = self._arranged(grads, grad_scale)
        if found is None:
            return
        arrangement, multiplier, given, copies = found
        updated = self._update(arrangement, multiplier, lr)
        if options.accumulate > 1:
            self._accumulator.restart()
        if updated:
            self._count += 1
            if options.zero_grads:
                clear_rest(self._all_leaves(), given, copies)
        elif options.zero_grads:
            clear([leaf.grad for leaf in self._all_leaves()] if given is None else given)
        if options.max_skips is not None:
            self._pull()
            self._guard.complain()

    def _update(self, arrangement: Arrangement, multiplier: float, lr: float | None) -> bool:
        """Update the leaves, unless the guard refuses the gradients; return whether they were updated."""
        if self._on_device:
            self._take_step(arrangement, multiplier, lr)
            return True
        factors = None
        if arrangement.norms is not None:
            norms = arrangement.norms.measure(multiplier)
            norm = combined(norms)
            factor = self._guard.factor(norms, norm, self._count)
            if self._guard.refuses(norm):
                return False
            if isinstance(factor, float):
                multiplier *= factor
            else:
                factors = factor
        try:
            arrangement.set_scalars(self._count, multiplier, lr, factors)
        except OverflowError:
            raise self._too_large(multiplier, lr) from None
        arrangement.run()
        return True

    @property
    def grad_norm(self) -> float | None:
        """The norm of all gradients of the latest step: divided by their scale, and before they were clipped.

        None where no option asked for it; ``max_grad_norm=math.inf`` does, and clips nothing.
        """
        self._turn.wait()
        self._pull()
        return self._guard.grad_norm

    @property
    def skipped_nonfinite(self) -> int:
        """How many steps were left out because a gradient was not finite."""
        self._turn.wait()
        self._pull()
        return self._guard.nonfinite

    @property
    def skipped_outliers(self) -> int:
        """How many steps were left out because the norm of the gradients was an outlier."""
        self._turn.wait()
        self._pull()
        return self._guard.outliers

    @property
    def grad_scaler(self) -> GradScaler | None:
        """The scaler that the optimizer was given."""
        return self._options.grad_scaler

    def zero_grad(self) -> None:
        """Set the gradients of the pack to zero.

        While the gradients of several steps are added up (``accumulate``), it does nothing: the sums are
        wanted still.

        Raises
        ------
        TypeError
            If a group is not a pack: the gradients given to :meth:`step` belong to the caller.
        """
        self._turn.wait()
        for group in self._groups:
            if not isinstance(group.mapping["params"], Pack):
                raise TypeError("zero_grad() needs a pack: gradients given to step() are the caller's")
        if not self._accumulator.count:
            with self._on_stream():
                for group in self._groups:
                    group.mapping["params"].zero_grad()

    def _options_state(self) -> dict[str, Any]:
        self._pull()
        return {
            "seed": int(self._options.seed),
            "skipped": self._skipped,
            "guard": self._guard.state_dict(),
            "accumulated": self._accumulator.state_dict(self._leaves()),
        }

    def _check_options_state(self, saved: Any) -> None:
        expect_keys(saved, ("guard", "accumulated"), "state_dict['options']")
        self._guard.check_state(saved["guard"], "state_dict['options']['guard']")
        what = "state_dict['options']['accumulated']"
        self._accumulator.check_state(self._leaves(), saved["accumulated"], what)

    def _load_options_state(self, saved: Any) -> None:
        self._options.seed = int(saved.get("seed", self._options.seed))
        self._skipped = int(saved.get("skipped", 0))
        self._count += self._skipped
        self._guard.load_state_dict(saved["guard"])
        if self._device_guard is not None:
            self._device_guard.push()
        self._accumulator.load_state_dict(self._leaves(), saved["accumulated"])
