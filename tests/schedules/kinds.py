"""A strategy for each schedule, of all that it may be made of."""

from hypothesis import strategies as st

from fastopt import schedules as s

values = st.floats(0.0, 1e3, allow_subnormal=False) | st.sampled_from([0.0, 1e-8, 1e-3, 1.0])
lengths = st.integers(0, 60)
positive = st.integers(1, 60)
shapes = st.sampled_from(["linear", "cosine", "1-sqrt"])
powers = st.floats(0.1, 4.0)
factors = st.floats(0.1, 1.5)

#: Without parts.
SIMPLE = {
    s.Constant: st.builds(s.Constant, values),
    s.Linear: st.builds(s.Linear, values, lengths, values),
    s.Polynomial: st.builds(s.Polynomial, values, lengths, values, powers),
    s.Exponential: st.builds(
        s.Exponential, values, factors, positive, st.booleans(), st.none() | st.floats(1e-6, 10.0)
    ),
    s.InverseSqrt: st.builds(s.InverseSqrt, values, positive),
    s.Step: st.builds(s.Step, values, positive, factors),
    s.MultiStep: st.builds(s.MultiStep, values, st.lists(lengths, max_size=4), factors),
    s.Piecewise: st.builds(
        s.Piecewise,
        values,
        st.dictionaries(lengths, values, max_size=4),
        st.sampled_from(["constant", "linear", "cosine", "1-sqrt"]),
    ),
    s.Cosine: st.builds(s.Cosine, values, lengths, values, powers),
    s.CosineRestarts: st.builds(s.CosineRestarts, values, positive, st.integers(1, 3), values),
    s.OneCycle: st.one_of(
        st.builds(s.OneCycle, values, positive, st.floats(0.0, 1.0), shape=shapes),
        st.builds(s.OneCycle, values, positive, st.floats(0.0, 0.5), values, values, shapes, st.just(True)),
    ),
    s.Cyclic: st.builds(
        s.Cyclic,
        values,
        values,
        positive,
        st.none() | lengths,
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
        st.floats(0.5, 1.0),
    ),
    s.WarmupStableDecay: st.builds(
        s.WarmupStableDecay, values, lengths, lengths, lengths, values, values, shapes
    ),
    s.ReduceOnPlateau: st.builds(
        s.ReduceOnPlateau,
        values,
        st.floats(0.0, 0.9),
        st.integers(0, 3),
        st.floats(0.0, 0.1),
        st.sampled_from(["rel", "abs"]),
        st.integers(0, 3),
        st.sampled_from([0.0, 1e-3]),
        st.sampled_from(["min", "max"]),
        st.sampled_from([0.0, 1e-8]),
    ),
}
simple = st.one_of(list(SIMPLE.values()))
part = st.one_of(values, *SIMPLE.values())


@st.composite
def sequences(draw):
    parts = draw(st.lists(part, min_size=1, max_size=4))
    milestones = draw(st.lists(lengths, min_size=len(parts) - 1, max_size=len(parts) - 1))
    return s.Sequence(parts, sorted(milestones))


warmups = st.builds(
    s.Warmup, part, lengths, st.floats(0.0, 2.0), st.sampled_from(["linear", "constant"]), st.booleans()
)

#: Every class, with parts that have none themselves.
KINDS = {
    **SIMPLE,
    s.Warmup: warmups,
    s.Sequence: sequences(),
    s.Chain: st.builds(s.Chain, st.lists(part | warmups, min_size=1, max_size=3)),
    s.Tuple: st.builds(s.Tuple, st.lists(part | warmups, min_size=1, max_size=3)),
}
