"""torch.optim, in each form that it has on the CPU, and DeepSpeed's optimizers for the CPU."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest import KEPT, MAX_NORM, Contestant, Task, Unavailable, need, refilled, refuse
from workloads import Arrays

#: Those with a fused kernel for the CPU.
FUSED = ("SGD", "Adagrad", "Adam", "AdamW")
#: Their names in DeepSpeed.
DEEPSPEED = {
    "Adam": ("adam", "DeepSpeedCPUAdam"),
    "AdamW": ("adam", "DeepSpeedCPUAdam"),
    "Adagrad": ("adagrad", "DeepSpeedCPUAdagrad"),
    "Lion": ("lion", "DeepSpeedCPULion"),
}
#: Of more arrays, the compiler makes code for minutes.
MOST_COMPILED = 10
#: Seconds after which a build is given up: it would wait for another that has died.
LONGEST_BUILD = 600


def loop(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    return _taken(task, params, grads, _optimizer(task, foreach=False))


def foreach(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    return _taken(task, params, grads, _optimizer(task, foreach=True))


def fused(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    need("torch")
    if task.algorithm not in FUSED:
        raise Unavailable(f"has no fused {task.algorithm}")
    return _taken(task, params, grads, _optimizer(task, fused=True))


def compiled(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """Return the whole step, clipping and averages too, as Inductor compiles it from the foreach form."""
    torch = need("torch")
    if not any(map(shutil.which, ("g++", "clang++"))):
        raise Unavailable("there is no C++ compiler")
    if len(params) > MOST_COMPILED:
        raise Unavailable(f"compiles for minutes where there are {len(params)} arrays")
    torch._dynamo.reset()  # what was compiled for other shapes counts against a limit
    logging.getLogger("torch._dynamo").setLevel(logging.ERROR)
    logging.getLogger("torch._logging").setLevel(logging.ERROR)
    return _taken(task, params, grads, _optimizer(task, foreach=True), torch.compile)


def deepspeed(task: Task, params: Arrays, grads: Arrays) -> Contestant:
    """Return DeepSpeed's update, whose C++ is built at its first use, with torch's clipping and average."""
    _import_deepspeed()
    refuse(task, list(DEEPSPEED))
    module, name = DEEPSPEED[task.algorithm]
    if problem := _built(module):
        raise Unavailable(f"its C++ cannot be built: {problem}")
    cls = getattr(need(f"deepspeed.ops.{module}"), name)
    extra = {"adamw_mode": task.algorithm == "AdamW"} if module == "adam" else {}

    return _taken(task, params, grads, lambda own: cls(own, **task.settings, **extra))


@functools.cache
def _built(module: str) -> str:
    """Build what a module of DeepSpeed needs, in a process of its own; return why that failed, if it did."""
    program = f"from deepspeed.ops import op_builder; op_builder.CPU{module.title()}Builder().load()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=LONGEST_BUILD,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done in {LONGEST_BUILD} s; a lock of a build that died may lie in TORCH_EXTENSIONS_DIR"
    return (done.stderr.strip().splitlines() or ["failed"])[-1] if done.returncode else ""


@functools.cache
def _import_deepspeed() -> None:
    need("torch")
    # Tools that came with the packages (ninja) are beside the interpreter.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        need("deepspeed")


def _optimizer(task: Task, **form: bool) -> Callable[[Any], Any]:
    torch = need("torch")
    if task.algorithm == "Momentum":
        raise Unavailable("its SGD is the same")
    cls = lion() if task.algorithm == "Lion" else getattr(torch.optim, task.algorithm)
    return lambda own: cls(own, **task.settings, **form)


def _taken(
    task: Task,
    params: Arrays,
    grads: Arrays,
    make: Callable[[Any], Any],
    compiler: Callable[[Any], Any] = lambda step: step,
) -> Contestant:
    torch = need("torch")
    own = [torch.nn.Parameter(torch.tensor(array)) for array in params]
    for parameter, array in zip(own, grads, strict=True):
        parameter.grad = torch.tensor(array)
    opt = make(own)
    values = [parameter.detach() for parameter in own]
    averages = [value.clone() for value in values] if task.averages else []

    def step() -> None:
        if task.clips:
            torch.nn.utils.clip_grad_norm_(own, MAX_NORM)
        opt.step()
        if task.averages:
            torch._foreach_lerp_(averages, values, 1 - KEPT)
        if task.zeroes:
            opt.zero_grad(set_to_none=False)

    def write(given: Arrays) -> None:
        for parameter, array in zip(own, given, strict=True):
            parameter.grad.copy_(torch.from_numpy(array))

    whole = compiler(opt.step if task.kind == "update" else step)
    again = refilled(whole, write, grads) if task.zeroes else whole
    return Contestant(
        again,
        write,
        lambda: ([value.numpy() for value in values], [average.numpy() for average in averages]),
        lambda: [parameter.grad.numpy() for parameter in own],
    )


@functools.cache
def lion() -> Any:
    """Return Lion, which torch has not, in its operations: a call for each tensor, or one for all."""
    torch = need("torch")

    class Lion(torch.optim.Optimizer):  # type: ignore[misc, name-defined]
        def __init__(
            self,
            params: Any,
            lr: float,
            betas: tuple[float, float] = (0.9, 0.99),
            weight_decay: float = 0.0,
            foreach: bool = False,
        ) -> None:
            defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "foreach": foreach}
            super().__init__(params, defaults)

        @torch.no_grad()
        def step(self, closure: None = None) -> None:
            for group in self.param_groups:
                params, lr, (beta1, beta2) = group["params"], group["lr"], group["betas"]
                grads = [param.grad for param in params]
                for param in params:
                    if not self.state[param]:
                        self.state[param]["exp_avg"] = torch.zeros_like(param)
                averages = [self.state[param]["exp_avg"] for param in params]
                decay = 1.0 - lr * group["weight_decay"]
                if group["foreach"]:
                    moves = torch._foreach_mul(averages, beta1)
                    torch._foreach_add_(moves, grads, alpha=1 - beta1)
                    torch._foreach_sign_(moves)
                    torch._foreach_mul_(params, decay)
                    torch._foreach_add_(params, moves, alpha=-lr)
                    torch._foreach_lerp_(averages, grads, 1 - beta2)
                    continue
                for param, grad, average in zip(params, grads, averages, strict=True):
                    move = average.mul(beta1).add_(grad, alpha=1 - beta1).sign_()
                    param.mul_(decay).add_(move, alpha=-lr)
                    average.lerp_(grad, 1 - beta2)

    return Lion
