"""What the rules say of their state, for it to be stored in fewer bits."""

import numpy as np

from fastopt import Rule
from tests.algorithms.cases import draw, each_case, step


@each_case
def test_state_that_is_never_negative_is_declared(case):
    rng = np.random.default_rng(0)
    params = [draw(rng, (40,), "float32"), draw(rng, (7, 9), "float32")]
    opt = case.optimizer(params)
    for _ in range(4):
        step(opt, [draw(rng, each.shape, "float32") for each in params])
    for leaf in opt._leaves():
        if not isinstance(leaf.rule, Rule):
            continue
        rule = leaf.rule
        for name in rule.state:
            values = leaf.state[name]
            if name in rule.squares:
                assert (values >= 0.0).all(), name
                assert (values > 0.0).any(), name
            elif name not in rule.exact:
                assert (values < 0.0).any(), name
