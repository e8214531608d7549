"""Two optimizers, of arrays of the CPU and of copies of them on a device, that are given the same gradients."""

import copy

import numpy as np

import fastopt
from fastopt.engine import cuda, device
from fastopt.engine.storage import FORMATS, decode, join
from tests.algorithms.cases import draw, leaves
from tests.cuda.foreign import foreign, host

#: A matrix of two tiles of the simulator's, and what is none; without elements; without axes.
SHAPES = {"w": (5, 7), "b": (3,), "none": (0, 2), "s": ()}

#: What may be off, in units of eps: a GPU rounds a product and a sum once where the CPU rounds twice; and what
#: is added up is in another order there.
TOL = 64
#: What a format rounds to, of a number, or of the greatest of its block.
STEPS = {"bfloat16": 2**-7, "float16": 2**-10, "float8": 2**-3, "float8_squares": 2**-3}


def tree(make, shapes):
    """Return a tree of arrays in the structure of one of shapes."""
    if isinstance(shapes, dict):
        return {key: tree(make, inner) for key, inner in shapes.items()}
    if isinstance(shapes, list):
        return [tree(make, inner) for inner in shapes]
    return make(shapes)


def flattened(found):
    """Return the values of a tree of trees in its order, None too."""
    if isinstance(found, dict | list):
        return [
            leaf
            for child in (found.values() if isinstance(found, dict) else found)
            for leaf in flattened(child)
        ]
    return [found]


class Pair:
    """Both optimizers.

    Parameters
    ----------
    make : callable
        Makes an optimizer: of parameters, with options.
    shapes : tree, or list of trees
        Of the parameters; with ``groups``, a tree for each.
    dtype, grad_dtype : data-type
        Of the parameters, and of their gradients.
    packed : bool
        Whether they are in packs, whose gradients are set. Else gradients are given.
    groups : list of dict, optional
        The hyperparameters of groups.
    exact : bool
        Whether the simulator's numbers are the CPU's bit for bit. Else what is added up may be in another
        order.
    gradients : callable
        Draws them: ``(rng, shape, dtype)``.
    """

    def __init__(
        self, make, shapes=SHAPES, dtype="float32", *, grad_dtype=None, packed=True, groups=None, exact=True,
        gradients=draw, seed=0, **options,
    ):  # fmt: skip
        self.rng, self.packed, self.exact, self.gradients = (
            np.random.default_rng(seed),
            packed,
            exact,
            gradients,
        )
        self.dtype, self.grad_dtype = np.dtype(dtype), np.dtype(grad_dtype or dtype)
        self.shapes = shapes
        params = tree(lambda shape: draw(self.rng, shape, "float64").astype(dtype), shapes)
        self.here = self._optimizer(make, copy.deepcopy(params), groups, copy.deepcopy(options), "cpu")
        self.there = self._optimizer(make, params, groups, copy.deepcopy(options), "cuda")
        self.peaks = {
            (number, i, name): np.abs(np.ravel(array).astype(np.float64))
            for name in ("params", "ema", "swa", "slow", "z", "p0")
            for number, own in enumerate(params if groups else [params])
            for i, array in enumerate(flattened(own))
        }
        self.given = self.drawn = None

    def _optimizer(self, make, params, groups, options, place):
        def placed(params):
            if self.packed:
                return fastopt.pack(params, grad_dtype=self.grad_dtype, device=place)
            return params if place == "cpu" else self._placed(params)

        if groups is None:
            self.several = False
            return make(placed(params), **options)
        self.several = True
        groups = copy.deepcopy(groups)
        return make(
            [{"params": placed(own), **each} for own, each in zip(params, groups, strict=True)], **options
        )

    @property
    def both(self):
        return self.here, self.there

    def draw(self, scale=1.0):
        """Return a tree of gradients."""
        return tree(
            lambda shape: np.asarray(self.gradients(self.rng, shape, "float64") * scale).astype(
                self.grad_dtype
            ),
            self.shapes,
        )

    def packs(self, opt):
        return [group["params"] for group in opt.param_groups]

    def step(self, grads=None, *, adds=False, **options):
        """Have both take a step with a tree of gradients; drawn by default."""
        drawn = grads = self.draw() if grads is None else grads
        for opt in self.both:
            on_device, given = opt is self.there, copy.deepcopy(grads)
            if self.packed:
                trees = given if self.several else [given]
                for pack, own in zip(self.packs(opt), trees, strict=True):
                    self._set(pack, own, adds)
                given = None
            elif on_device:
                given = self._placed(given)
            if isinstance(opt, fastopt.NAG):
                with opt.lookahead():
                    pass
            opt.step(given, **options)
            self.given = (self.given[-1], given) if on_device else (given,)
        return drawn

    def _placed(self, arrays):
        """Return copies on the device: other libraries show no bfloat16, our own arrays do."""
        plain = all(each is None or each.dtype.kind == "f" for each in flattened(arrays))
        if plain:
            return foreign(arrays)
        return tree(lambda array: None if array is None else device.asarray(array), arrays)

    def _set(self, pack, grads, adds):
        for array, grad in zip(leaves(pack.grads), flattened(grads), strict=True):
            if adds:
                grad = grad + np.array(array)
            if isinstance(array, np.ndarray):
                array[...] = grad
            else:
                array.copy_to_device(grad)

    def run(self, steps=3, **options):
        for _ in range(steps):
            self.step(**options)
        return self

    def grads(self):
        """Return what is left of the latest gradients: those of the CPU, those of the device."""
        if self.packed:
            return [[np.array(pack.flat_grads) for pack in self.packs(opt)] for opt in self.both]
        here, there = (flattened(given) for given in self.given)
        return here, [None if each is None else host(each) for each in there]

    def check(self, grads=False):
        """Raise an AssertionError unless both hold the same: parameters, state, counts, what they left out."""
        here, there = (opt.state_dict(params=True) for opt in self.both)
        assert here["step_count"] == there["step_count"]
        for number, (mine, theirs) in enumerate(
            zip(here["param_groups"], there["param_groups"], strict=True)
        ):
            assert mine["steps"] == theirs["steps"]
            assert mine["state"].keys() == theirs["state"].keys()
            for name in ("params", *mine["state"]):
                columns = [
                    each["params"] if name == "params" else each["state"][name] for each in (mine, theirs)
                ]
                if name == "params" and "low_bits" in mine["state"]:
                    columns = [_whole(each) for each in (mine, theirs)]
                if name != "low_bits":
                    for i, (want, got) in enumerate(zip(*columns, strict=True)):
                        self._compare((number, i, name), got, want)
        mine, theirs = here["options"]["guard"], there["options"]["guard"]
        for name in ("nonfinite", "outliers", "in_a_row", "grad_scaler"):
            assert theirs[name] == mine[name], name
        np.testing.assert_allclose(theirs["norms"], mine["norms"], 1e-6)
        assert (self.there.grad_norm is None) == (self.here.grad_norm is None)
        if self.here.grad_norm is not None:
            np.testing.assert_allclose(
                self.there.grad_norm, self.here.grad_norm, 1e-14 if cuda.SIMULATED else 1e-6
            )
        if grads:
            for got, want in zip(*reversed(self.grads()), strict=True):
                np.testing.assert_array_equal(got, want)

    def _compare(self, place, got, want):
        if want is None or got is None:
            assert got is want, place
            return
        if isinstance(want, dict):
            assert (got["format"], got["order"]) == (want["format"], want["order"]), place
            if cuda.SIMULATED and self.exact:
                np.testing.assert_array_equal(got["stored"], want["stored"], str(place), strict=True)
                return
            form, eps = FORMATS[want["format"]], STEPS[want["format"]]
            got, want = (decode(form, each["stored"], _size(form, each["stored"])) for each in (got, want))
            if form.block > 1:
                eps = (
                    eps
                    * np.max(np.abs(want), initial=1e-30)
                    / np.maximum(np.abs(want), 1e-30).astype(np.float64)
                )
        else:
            got, want = np.asarray(got), np.asarray(want)
            assert (got.dtype, got.shape) == (want.dtype, want.shape), place
            exact = cuda.SIMULATED and self.exact
            eps = 0.0 if exact else 2**-10 if want.dtype == np.float16 else TOL * self.eps
        got, want = (each.astype(np.float64).ravel() for each in (got, want))
        peak = self.peaks[place] = np.fmax(self.peaks.get(place, 0.0), np.abs(want))
        with np.errstate(invalid="ignore"):
            same = (got == want) | (np.isnan(got) & np.isnan(want)) | (np.abs(got - want) <= eps * peak)
        if not same.all():
            at = int(np.argmin(same))
            off = (abs(got - want) / np.maximum(peak, 1e-300))[at] / self.eps
            raise AssertionError(
                f"{place} at {at}: {got[at]!r} should be {want[at]!r}, which is {off:.3g} eps "
                f"off; {(~same).sum()} of {same.size} are"
            )

    @property
    def eps(self):
        return np.finfo("float64" if self.dtype == np.float64 else "float32").eps


def _whole(group):
    """Return the float32 numbers of which parameters are the high bits."""
    lows = group["state"]["low_bits"]
    return [
        high if low is None else join(high["stored"], np.ravel(low))
        for high, low in zip(group["params"], lows, strict=True)
    ]


def _size(form, stored):
    """Return how many numbers an array of codes holds, or a few more, which are zero."""
    if form.block == 1:
        return stored.size
    size = stored.size
    while -(-size // 4) * 4 + -(-size // form.block) * 4 > stored.size:
        size -= 1
    return size
