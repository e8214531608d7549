"""The engine: what turns a scalar rule into a fused update. It knows no algorithm."""

from fastopt.engine.batch import Batch, Segment
from fastopt.engine.kernel import compile_kernel
from fastopt.engine.rule import Rule
from fastopt.engine.threads import available_threads

__all__ = ["Batch", "Rule", "Segment", "available_threads", "compile_kernel"]
