"""Steps on a CUDA device by fastopt, torch and apex, and the check of their answers.

The parameters, hundreds of times as many as are drawn, repeat a period, and so do the gradients. They are
made on the device, and what is compared with the reference is a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import _measure  # noqa: F401  first: it says which fastopt is measured
import numpy as np
from contest import KEPT, MAX_NORM, Task, Unavailable, compare, need, reference_of, reference_settings
from libraries.by_fastopt import options
from libraries.by_torch import FUSED, MOST_COMPILED, lion
from numpy.typing import NDArray
from workloads import Array, Shapes, start

import fastopt
from fastopt.benchmark.streams import COPY
from fastopt.engine import Batch, cuda, device
from fastopt.engine.device import DeviceArray
from tests import reference

#: A prime, so that no tile begins as another does.
PERIOD = 999_983
#: Elements that are compared in a piece, and how many pieces: of a sole array, and of each of many.
PIECE, PIECES, FEW = 2000, 30, 3
#: How far parameters may be off, in learning rates, after the check's steps with state in fewer bytes.
OFF = {"float32": 0.0, "bfloat16": 0.05, "float8": 0.5}
STATE_BYTES = {"float32": 4, "bfloat16": 2, "float8": 1}
#: Buffers of state that each algorithm has.
STATE = {"AdamW": 2, "SGD": 1, "Lion": 1}


class Period(NamedTuple):
    """What the parameters and the gradients repeat."""

    params: Array
    grads: Array


def period(size: int = PERIOD) -> Period:
    (params,), (grads,) = start([(size,)])
    return Period(params, grads)


class Contestant(NamedTuple):
    """A step without arguments, over memory of its own on the device."""

    step: Callable[[], object]
    params: Sequence[DeviceArray]
    grads: Sequence[DeviceArray]
    averages: Sequence[DeviceArray] = ()
    state_dtype: str = "float32"
    #: What a recorded step writes to, and does not hold itself.
    alive: Any = None


def bytes_moved(task: Task, state_dtype: str = "float32") -> int:
    """Return the bytes that a step must move for each parameter, whoever takes it.

    Clipping reads the gradients a second time. The scales of float8's blocks are left out.
    """
    found = 12 + 2 * STATE_BYTES[state_dtype] * STATE[task.algorithm]
    return found + 4 * task.clips + 8 * task.averages + 4 * task.zeroes


# The numbers.


def fill(arrays: Sequence[DeviceArray], values: Array) -> None:
    """Write some numbers to arrays, over and over, as if these were one after the other."""
    begin = 0
    for array in arrays:
        flat = array.reshape(-1)
        known = min(flat.size, values.size)
        flat[:known].copy_to_device(values.take(np.arange(begin, begin + known), mode="wrap"))
        while known < flat.size:
            more = min(known, flat.size - known)
            flat[known : known + more].copy_to_device(flat[:more])
            known += more
        begin += flat.size


def empty(shapes: Shapes) -> list[DeviceArray]:
    return [device.empty(shape, np.float32) for shape in shapes]


class Sample:
    """Some elements of arrays: of small ones all, of others both ends and pieces between."""

    def __init__(self, arrays: Sequence[DeviceArray]) -> None:
        piece, pieces = (PIECE, PIECES) if len(arrays) == 1 else (max(8, 10**5 // len(arrays)), FEW)
        self._pieces: list[tuple[int, int, int]] = []
        places, begin = [], 0
        for number, array in enumerate(arrays):
            starts = np.linspace(0, max(0, array.size - piece), pieces).astype(np.int64)
            starts = starts if array.size > pieces * piece else starts[:1]
            length = piece if len(starts) > 1 else array.size
            self._pieces += [(number, int(at), int(at) + length) for at in starts]
            places += [begin + at + np.arange(length) for at in starts]
            begin += array.size
        #: Where they are among all elements.
        self.places, self.size = np.concatenate(places), begin

    def of(self, arrays: Sequence[DeviceArray]) -> NDArray[np.float64]:
        flat = [array.reshape(-1) for array in arrays]
        found = [flat[number][at:stop].copy_to_host() for number, at, stop in self._pieces]
        return np.concatenate(found).astype(np.float64)

    def of_period(self, values: Array) -> NDArray[np.float64]:
        return values.take(self.places, mode="wrap").astype(np.float64)

    def norm(self, values: Array) -> float:
        """Return the norm of all elements."""
        squares = values.astype(np.float64) ** 2
        whole, rest = divmod(self.size, values.size)
        return float(np.sqrt(whole * squares.sum() + squares[:rest].sum()))


def check(task: Task, contestant: Contestant, numbers: Period) -> None:
    """Take three steps, as :func:`contest.check` does, and raise unless they are those of float64."""
    sample = Sample(contestant.params)
    first, given = sample.of_period(numbers.params), sample.of_period(numbers.grads)
    exact = reference.Run(reference_of(task.algorithm), first, **reference_settings(task.algorithm))
    average, norm = first, sample.norm(numbers.grads)
    for factor in (1.0, -0.5, 2.0):
        fill(contestant.grads, np.float32(factor) * numbers.grads)
        contestant.step()
        clip = min(1.0, MAX_NORM / (abs(factor) * norm + 1e-6)) if task.clips else 1.0
        exact.step(factor * clip * given)
        average = KEPT * average + (1 - KEPT) * exact.params
    off = OFF[contestant.state_dtype] * task.settings["lr"]
    compare("parameters", sample.of(contestant.params), exact.params, first, off)
    if task.averages:
        compare("averages", sample.of(contestant.averages), average, first, off)
    if task.zeroes and sample.of(contestant.grads).any():
        raise AssertionError("gradients are not zero after the step")
    fill(contestant.grads, numbers.grads)


# fastopt. Averages begin as the parameters, which must have their numbers before the optimizer is made.


def packed(task: Task, shapes: Shapes, numbers: Period, state_dtype: str = "float32") -> Contestant:
    pack = fastopt.pack(empty(shapes))
    fill(pack.params, numbers.params)
    # Small arrays would keep float32 if they were not named.
    stored = {} if state_dtype == "float32" else {"overrides": {"*": {"state_dtype": state_dtype}}}
    opt = getattr(fastopt, task.algorithm)(pack, **options(task), **stored)
    averages = opt.averages("ema") if task.averages else ()
    return Contestant(opt.step, pack.params, pack.grads, averages, state_dtype)


def in_bfloat16(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    return packed(task, shapes, numbers, "bfloat16")


def in_float8(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    return packed(task, shapes, numbers, "float8")


def unpacked(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    """Arrays that stay where they are, and gradients in the same arrays at each step."""
    if len(shapes) == 1:
        raise Unavailable("one array needs no pack")
    params, grads = empty(shapes), empty(shapes)
    fill(params, numbers.params)
    opt = getattr(fastopt, task.algorithm)(params, **options(task))
    averages = opt.averages("ema") if task.averages else ()
    return Contestant(lambda: opt.step(grads), params, grads, averages)


def of_tensors(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    """torch's tensors, on torch's stream."""
    params, grads = _tensors(shapes, numbers)
    opt = getattr(fastopt, task.algorithm)(params, **options(task))
    averages = opt.averages("ema") if task.averages else ()
    return Contestant(lambda: opt.step(grads), _shown(params), _shown(grads), averages)


def of_tensors_in_a_graph(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    """The launches recorded once; before each replay the host says what is new."""
    params, grads = _tensors(shapes, numbers)
    torch, make = need("torch"), getattr(fastopt, task.algorithm)
    # Compiles what is recorded below: a step of the parameters themselves would be one too many.
    make([torch.zeros(8, device="cuda")], **options(task)).step([torch.ones(8, device="cuda")])
    opt = make(params, **options(task))
    graph, prepared = torch.cuda.CUDAGraph(), True
    opt.prepare_step(grads)
    with torch.cuda.graph(graph):
        opt.launch_step()

    def step() -> None:
        nonlocal prepared
        if not prepared:
            opt.prepare_step(grads)
        prepared = False
        graph.replay()

    averages = opt.averages("ema") if task.averages else ()
    return Contestant(step, _shown(params), _shown(grads), averages)


# torch, and what has its form.


def fused(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    return _by_torch(task, shapes, numbers, _optimizer(task, fused=True))


def fused_in_a_graph(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    capturable = {"capturable": True} if task.algorithm == "AdamW" else {}
    return _by_torch(task, shapes, numbers, _optimizer(task, fused=True, **capturable), _recorded)


def foreach(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    return _by_torch(task, shapes, numbers, _optimizer(task, foreach=True))


def compiled(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    """Return the whole step, as Inductor compiles it from the foreach form."""
    if len(shapes) > MOST_COMPILED:
        raise Unavailable(f"compiles for minutes where there are {len(shapes)} arrays")
    torch = need("torch")
    torch._dynamo.reset()  # what was compiled for other shapes counts against a limit
    return _by_torch(
        task, shapes, numbers, _optimizer(task, foreach=True), lambda step, *_: torch.compile(step)
    )


def apex(task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    forms = {"AdamW": ("FusedAdam", {"adam_w_mode": True}), "SGD": ("FusedSGD", {})}
    module = need("apex.optimizers")
    if task.algorithm not in forms:
        raise Unavailable(f"has no {task.algorithm}")
    name, extra = forms[task.algorithm]
    return _by_torch(task, shapes, numbers, lambda own: getattr(module, name)(own, **task.settings, **extra))


def _optimizer(task: Task, **form: bool) -> Callable[[Any], Any]:
    torch = need("torch")
    if form.get("fused") and task.algorithm not in FUSED:
        raise Unavailable(f"has no fused {task.algorithm}")
    cls = lion() if task.algorithm == "Lion" else getattr(torch.optim, task.algorithm)
    return lambda own: cls(own, **task.settings, **form)


def _tensors(shapes: Shapes, numbers: Period) -> tuple[list[Any], list[Any]]:
    """Return parameters and gradients as torch's tensors, in memory of torch's."""
    torch = need("torch")
    if not torch.cuda.is_available():
        raise Unavailable("torch finds no CUDA device")
    params, grads = ([torch.empty(shape, device="cuda") for shape in shapes] for _ in range(2))
    fill(_shown(params), numbers.params)
    fill(_shown(grads), numbers.grads)
    return params, grads


def _shown(tensors: Sequence[Any]) -> list[DeviceArray]:
    return [device.of(tensor.detach(), "a tensor") for tensor in tensors]


def _by_torch(
    task: Task,
    shapes: Shapes,
    numbers: Period,
    make: Callable[[Any], Any],
    wrap: Callable[..., Callable[[], object]] = lambda step, *_: step,
) -> Contestant:
    params, grads = _tensors(shapes, numbers)
    torch = need("torch")
    own = [torch.nn.Parameter(param) for param in params]
    for parameter, grad in zip(own, grads, strict=True):
        parameter.grad = grad
    opt = make(own)
    averages = [param.clone() for param in params] if task.averages else []

    def step() -> None:
        if task.clips:
            torch.nn.utils.clip_grad_norm_(own, MAX_NORM)
        opt.step()
        if task.averages:
            torch._foreach_lerp_(averages, params, 1 - KEPT)
        if task.zeroes:
            torch._foreach_zero_(grads)

    def begin_anew() -> None:
        fill(_shown(params), numbers.params)
        fill(_shown(averages), numbers.params)
        fill(_shown(grads), numbers.grads)
        for state in opt.state.values():
            for value in filter(torch.is_tensor, state.values()):
                value.zero_()

    whole = wrap(opt.step if task.kind == "update" else step, begin_anew)
    return Contestant(whole, _shown(params), _shown(grads), _shown(averages), alive=opt)


def _recorded(step: Callable[[], object], begin_anew: Callable[[], None]) -> Callable[[], object]:
    """Return the replay of a step, which must have been taken some times before it can be recorded."""
    torch = need("torch")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    begin_anew()
    replay: Callable[[], object] = graph.replay
    return replay


#: All that take part, by name. ``torch, fused`` is what the targets are about.
CONTESTANTS: dict[str, Callable[[Task, Shapes, Period], Contestant]] = {
    "fastopt": packed,
    "fastopt, unpacked": unpacked,
    "fastopt, torch's tensors": of_tensors,
    "fastopt, in a graph": of_tensors_in_a_graph,
    "fastopt, bfloat16 state": in_bfloat16,
    "fastopt, float8 state": in_float8,
    "torch, fused": fused,
    "torch, fused, in a graph": fused_in_a_graph,
    "torch, foreach": foreach,
    "torch, compiled": compiled,
    "apex": apex,
}
#: Those that are measured in updates alone.
OF_UPDATES = ("fastopt, bfloat16 state", "fastopt, float8 state")
#: Those that need nothing but fastopt: the simulator has no torch.
OWN = ("fastopt", "fastopt, unpacked", *OF_UPDATES)


def make(name: str, task: Task, shapes: Shapes, numbers: Period) -> Contestant:
    """Return a contestant whose answers are right, or raise Unavailable; for fastopt's, Failed."""
    if name in OF_UPDATES and task.kind != "update":
        raise Unavailable("see the update")
    if cuda.SIMULATED and name not in OWN:
        raise Unavailable("is not in the simulator")
    kind = Failed if name.startswith("fastopt") else Unavailable
    try:
        contestant = CONTESTANTS[name](task, shapes, numbers)
        check(task, contestant, numbers)
    except Unavailable:
        raise
    except Exception as error:  # wrong answers, no memory, no compiler: each library has its own
        told = (str(error).strip() or "it says nothing").splitlines()[0]
        raise kind(f"{type(error).__name__}: {told}") from error
    return contestant


class Failed(Unavailable):
    """Says what is wrong with fastopt. The others go on: a machine with a GPU is not always there."""


def copies(size: int, numbers: Period) -> dict[str, Callable[[], object]]:
    """Return what copies so many numbers: the driver, and a kernel of fastopt's that does nothing else."""
    source, target = empty([(size,), (size,)])
    fill([source], numbers.params)
    batch = Batch(COPY, [(target, source, [], 0)], 1, 1)
    batch.set_scalars(0, 1.0, ())
    steps: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_to_device(source),
        "copy, by a kernel": batch.run,
    }
    sample = Sample([target])
    for name, step in steps.items():
        target.fill(0)
        step()
        if not np.array_equal(sample.of([target]), sample.of([source])):
            raise AssertionError(f"{name}: the copy differs")
    return steps
