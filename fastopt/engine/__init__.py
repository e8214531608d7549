"""The engine: what turns a scalar rule into a fused update. It knows no algorithm."""

from fastopt.engine.batch import Batch, Finish, Measurement, Segment, Squares
from fastopt.engine.callable import compile_kernel
from fastopt.engine.dot import dot
from fastopt.engine.matrix import Matrix, MatrixRule, Workspace
from fastopt.engine.rule import Measure, Rule
from fastopt.engine.threads import available_threads

__all__ = [
    "Batch",
    "Finish",
    "Matrix",
    "MatrixRule",
    "Measure",
    "Measurement",
    "Rule",
    "Segment",
    "Squares",
    "Workspace",
    "available_threads",
    "compile_kernel",
    "dot",
]
