"""The types in a function, and its intermediate code, as Numba sees them before it makes machine code."""

# mypy: disable-error-code="no-untyped-call, untyped-decorator"
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from numba.core import ir
from numba.core.compiler import CompilerBase, DefaultPassBuilder, Flags, compile_extra
from numba.core.compiler_machinery import AnalysisPass, PassManager, register_pass
from numba.core.registry import cpu_target
from numba.core.typed_passes import NopythonTypeInference


@register_pass(mutates_CFG=False, analysis_only=True)
class _Stop(AnalysisPass):
    """Ends the compilation with what is known so far."""

    _name = "fastopt_stop"

    def __init__(self) -> None:
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        state.cr = state
        return False


class _TypingOnly(CompilerBase):
    def define_pipelines(self) -> list[Any]:
        manager = PassManager("fastopt_typing")
        manager.passes.extend(DefaultPassBuilder.define_untyped_pipeline(self.state).passes)
        manager.add_pass(NopythonTypeInference, "types")
        manager.add_pass(_Stop, "stop")
        manager.finalize()
        return [manager]


def infer(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """Return what Numba finds out of a function: ``func_ir``, ``typemap``, ``calltypes``.

    Raises
    ------
    Exception
        What Numba raises, or Python as Numba looks at the function.
    """
    typing, target = cpu_target.typing_context, cpu_target.target_context
    return compile_extra(
        typing, target, function, tuple(arguments), None, Flags(), {}, pipeline_class=_TypingOnly
    )


def assignments(found: Any) -> Iterator[Any]:
    """Return what is assigned in a function, in its order."""
    for _, block in sorted(found.func_ir.blocks.items()):
        yield from block.find_insts(ir.Assign)


def _defined(variable: Any, made: dict[str, Any]) -> Any:
    value = made.get(variable.name)
    while isinstance(value, ir.Var):
        value = made.get(value.name)
    return value


def constant(variable: Any, made: dict[str, Any]) -> Any:
    """Return the value that a variable has whatever the arguments are, or None."""
    value = _defined(variable, made)
    if isinstance(value, ir.Const | ir.Global | ir.FreeVar):
        return value.value
    if isinstance(value, ir.Expr) and value.op == "getattr":
        return getattr(constant(value.value, made), value.attr, None)
    return None


def named(variable: Any, made: dict[str, Any]) -> str:
    """Return the name that a constant has, for an error."""
    value = _defined(variable, made)
    if isinstance(value, ir.Global | ir.FreeVar):
        return f"{value.name} = "
    return f"{value.attr} = " if isinstance(value, ir.Expr) else ""
