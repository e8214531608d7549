"""The adapter for torch, with tensors on a CUDA device; in the simulator, with tensors that say that they are."""

import copy
import ctypes
import pickle
from types import SimpleNamespace

import numpy as np
import pytest

import fastopt
from fastopt.engine import cuda
from fastopt.engine.device import of

torch = pytest.importorskip("torch", reason="torch is not installed: pip install fastopt[torch]")

import fastopt.adapters.torch as adapters  # noqa: E402

pytestmark = pytest.mark.skipif(
    not cuda.SIMULATED and not torch.cuda.is_available(), reason="torch finds no CUDA device"
)

SHAPES = [(4, 3), (3,), (2, 3, 2), (), (0, 2)]


class Pretended:
    """Has torch say that some tensors are on a CUDA device. In the simulator, that is the CPU's memory."""

    def __init__(self, patch):
        self.number, self.stream = 0, 5
        self.memory = {}  # by the addresses of torch's storages, which are kept alive
        tensor = torch.Tensor
        own = SimpleNamespace(
            **{name: getattr(tensor, name) for name in ("cpu", "device", "numpy", "to")},
            **{name: getattr(torch, name) for name in ("empty_like", "tensor")},
        )

        def device(one):
            return (
                torch.device("cuda", self.memory[self.key(one)][0])
                if one.is_cuda
                else own.device.__get__(one)
            )

        def cpu(one):
            return one.clone() if one.is_cuda else one

        def numpy(one):
            if one.is_cuda:
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
            return own.numpy(one)

        patch.setattr(tensor, "is_cuda", property(lambda one: self.key(one) in self.memory))
        patch.setattr(tensor, "device", property(device))
        patch.setattr(tensor, "cpu", cpu)
        patch.setattr(tensor, "numpy", numpy)
        patch.setattr(
            tensor, "to", lambda one, *to, **more: own.to(cpu(one) if "cpu" in to else one, *to, **more)
        )
        patch.setattr(torch, "empty_like", lambda one: self.like(own.empty_like(one), one.device))
        patch.setattr(
            torch, "tensor", lambda x, device="cpu", **more: self.like(own.tensor(x, **more), device)
        )
        patch.setattr(torch, "as_tensor", self.as_tensor)
        patch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(cuda_stream=self.stream))

    def key(self, tensor):
        return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else None

    def like(self, tensor, device):
        return self.there(tensor) if torch.device(device).type == "cuda" else tensor

    def there(self, tensor):
        tensor = tensor.clone()
        self.memory[self.key(tensor)] = self.number, tensor
        return tensor

    def as_tensor(self, array, device):
        assert device == torch.device("cuda", 0)
        shown = array.__cuda_array_interface__
        memory = (ctypes.c_uint8 * array.nbytes).from_address(shown["data"][0]) if array.size else bytearray()
        values = np.ndarray(shown["shape"], shown["typestr"], memory, strides=shown["strides"])
        tensor = torch.from_numpy(values)
        self.memory[self.key(tensor)] = 0, array, tensor
        return tensor


class Real:
    """Puts tensors on a CUDA device."""

    number, stream = 0, 0

    def there(self, tensor):
        return tensor.cuda()


@pytest.fixture
def torchs(monkeypatch):
    """Return what puts torch's tensors on a device."""
    return Pretended(monkeypatch) if cuda.SIMULATED else Real()


def draw(shape, seed, dtype=torch.float32):
    return torch.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)


def pair(torchs, dtype=torch.float32, shapes=SHAPES):
    """Return parameters on the CPU, and the same on the device."""
    tensors = [draw(shape, seed, dtype) for seed, shape in enumerate(shapes)]
    there = [torch.nn.Parameter(torchs.there(tensor)) for tensor in tensors]
    return [torch.nn.Parameter(tensor) for tensor in tensors], there


def set_gradients(torchs, here, there, seed, without=()):
    for i, (one, other) in enumerate(zip(here, there, strict=True)):
        one.grad = None if i in without else draw(one.shape, 10 * seed + i, one.dtype)
        other.grad = None if i in without else torchs.there(one.grad)


def assert_close(one, other):
    torch.testing.assert_close(one.detach(), other.detach().cpu())


def assert_alike(one, other, here, there):
    """Compare an optimizer on the CPU with one on the device, and their parameters."""
    for mine, theirs in zip(here, there, strict=True):
        assert_close(mine, theirs)
        known, found = one.state[mine], other.state[theirs]
        assert known.keys() == found.keys()
        for name, value in known.items():
            assert_close(value, found[name])


# Steps.


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion", "Adagrad", "ASGD", "LAMB", "Prodigy"])
def test_steps_are_those_of_the_cpu(torchs, name, dtype):
    options = {"lr": 0.03} | ({"momentum": 0.9} if name == "SGD" else {})
    here, there = pair(torchs, dtype)
    one, other = (getattr(adapters, name)(params, **options) for params in (here, there))
    where = [param.data_ptr() for param in there]
    for step in range(3):
        set_gradients(torchs, here, there, step, without=[1] if step == 1 else ())
        one.step()
        other.step()
    assert_alike(one, other, here, there)
    assert where == [param.data_ptr() for param in there]
    assert [param._version for param in there] == [param._version for param in here]


def test_state_is_on_the_device_and_can_be_written_to(torchs):
    here, there = pair(torchs)
    opt = adapters.AdamW(there, lr=0.1)
    set_gradients(torchs, here, there, 0)
    opt.step()
    entry = opt.state[there[0]]
    assert entry["exp_avg"].device == there[0].device
    assert entry["exp_avg"].shape == there[0].shape
    assert entry["step"].device.type == "cpu"  # as with torch's own, unless they are fused or captured
    entry["exp_avg"].zero_()
    set_gradients(torchs, here, there, 1)
    opt.step()
    torch.testing.assert_close(entry["exp_avg"].cpu(), 0.1 * here[0].grad)


def test_options(torchs):
    here, there = pair(torchs)
    options = {"lr": 0.1, "momentum": 0.9, "accumulate": 2, "max_grad_norm": 0.5, "ema_decay": 0.5}
    one, other = (adapters.SGD(params, **options) for params in (here, there))
    for step in range(4):
        set_gradients(torchs, here, there, step)
        one.step()
        other.step()
    assert_alike(one, other, here, there)
    assert one.fastopt.grad_norm == pytest.approx(other.fastopt.grad_norm)
    with other.fastopt.averaged_parameters("ema"):
        assert_close(one.state[here[0]]["ema"], there[0])


def test_frozen_by_name(torchs):
    here, there = pair(torchs, shapes=SHAPES[:2])
    opt = adapters.SGD([("w", there[0]), ("b", there[1])], lr=1.0, frozen="w")
    set_gradients(torchs, here, there, 0, without=[1])
    opt.step()
    set_gradients(torchs, here, there, 0)
    opt.step()
    assert_close(here[0], there[0])
    assert_close(here[1] - here[1].grad, there[1])


@pytest.mark.parametrize("zero_grads", [False, True])
def test_gradients_that_lie_otherwise(torchs, zero_grads):
    here, there = pair(torchs, shapes=[(4, 3)])
    opt = adapters.SGD(there, lr=1.0, zero_grads=zero_grads)
    grad = draw((3, 4), 5)
    there[0].grad = torchs.there(grad).T
    if zero_grads:
        with pytest.raises(
            ValueError, match="must lie in memory as its parameter does, because zero_grads=True"
        ):
            opt.step()
        there[0].grad = torchs.there(grad.T.contiguous())
    opt.step()
    assert_close(here[0] - grad.T, there[0])
    assert there[0].grad.any() != zero_grads


def test_parameters_in_fortran_order(torchs):
    (here,), _ = pair(torchs, shapes=[(4, 3)])
    there = torch.nn.Parameter(torchs.there(here.detach()).T)
    opt = adapters.Adam([there], lr=0.1)
    other = adapters.Adam([here], lr=0.1)
    for seed in range(2):
        here.grad = draw((4, 3), seed)
        there.grad = torchs.there(here.grad).T if seed else torchs.there(here.grad.T.contiguous())
        opt.step()
        other.step()
    assert_close(here.T, there)
    assert_close(other.state[here]["exp_avg"].T, opt.state[there]["exp_avg"])


def test_a_model_that_is_moved_takes_its_optimizer_with_it(torchs):
    here, _ = pair(torchs)
    moving = [torch.nn.Parameter(param.detach().clone()) for param in here]
    one, other = (adapters.AdamW(params, lr=0.1) for params in (here, moving))
    for step in range(3):
        if step == 1:
            for param in moving:
                param.data = torchs.there(param.data)
        set_gradients(torchs, here, moving, step)
        if step == 0:
            for mine, theirs in zip(here, moving, strict=True):
                theirs.grad = mine.grad.clone()
        one.step()
        other.step()
    assert_alike(one, other, here, moving)
    assert other.state[moving[0]]["exp_avg"].is_cuda


# Streams and graphs.


def test_steps_are_on_the_current_stream_of_torch(torchs, monkeypatch):
    if not cuda.SIMULATED:
        pytest.skip("is about the simulator's fake of a stream")
    here, there = pair(torchs)
    opt = adapters.AdamW(there, lr=0.1)
    streams, launched = [], cuda.run

    def run(*given):
        streams.append(cuda.current_stream())
        return launched(*given)

    monkeypatch.setattr(cuda, "run", run)
    for torchs.stream in (5, 7):
        streams.clear()
        set_gradients(torchs, here, there, 0)
        opt.step()
        assert set(streams) == {torchs.stream}


def test_steps_do_not_wait(torchs, monkeypatch):
    here, there = pair(torchs)
    opt = adapters.AdamW(there, lr=0.1, grad_scaler=fastopt.GradScaler(), ema_decay=0.5)
    for step in range(4):
        set_gradients(torchs, here, there, step)
        if step == 2:  # from now on, to be asked is an error
            monkeypatch.setattr(cuda, "to_host", None)
            monkeypatch.setattr(cuda, "synchronize", None)
        opt.step()


def test_steps_that_are_prepared(torchs):
    here, there = pair(torchs)
    one, other = (adapters.AdamW(params, lr=0.1) for params in (here, there))
    scheduler = [torch.optim.lr_scheduler.ExponentialLR(opt, 0.5) for opt in (one, other)]
    set_gradients(torchs, here, there, 0)
    for _ in range(3):
        one.step()
        other.fastopt.prepare_step([param.grad for param in there])
        other.fastopt.launch_step()
        other._opt_called = True  # by which torch knows that the scheduler comes after a step
        for each in scheduler:
            each.step()
    assert_alike(one, other, here, there)
    with pytest.raises(ValueError, match=r"takes no capturable=True: for CUDA graphs, its .fastopt has"):
        adapters.AdamW(there, capturable=True)


# State dicts.


def test_checkpoints_go_both_ways(torchs):
    here, there = pair(torchs)
    options = {"lr": 0.1, "accumulate": 2, "ema_decay": 0.5}
    one, other = (adapters.AdamW(params, **options) for params in (here, there))
    for step in range(3):
        set_gradients(torchs, here, there, step)
        one.step()
        other.step()
    saved = other.state_dict()
    assert saved["state"][0]["exp_avg"].is_cuda
    fresh = [adapters.AdamW(params, **options) for params in (here, there)]
    fresh[0].load_state_dict(saved)
    fresh[1].load_state_dict(one.state_dict())
    sums = saved["fastopt"]["options"]["accumulated"]["sums"]
    assert sums
    for place, tensor in list(sums.items()):  # as by torch.load(map_location="cuda")
        sums[place] = torchs.there(tensor)
    other.load_state_dict(saved)
    for step in range(3, 6):
        set_gradients(torchs, here, there, step)
        for opt in (fresh[0], other):
            opt.step()
    assert_alike(fresh[0], other, here, there)
    assert fresh[1].state[there[0]]["exp_avg"].is_cuda


def test_state_of_torchs_own(torchs):
    here, there = pair(torchs)
    theirs = torch.optim.AdamW(here, lr=0.1, foreach=False)
    set_gradients(torchs, here, there, 0)
    theirs.step()
    opt = adapters.AdamW(there, lr=0.5)
    opt.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        for mine, other in zip(here, there, strict=True):
            other.copy_(torchs.there(mine))
    set_gradients(torchs, here, there, 1)
    theirs.step()
    opt.step()
    for mine, other in zip(here, there, strict=True):
        torch.testing.assert_close(mine.detach(), other.detach().cpu(), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))])
def test_copies(torchs, copied):
    here, there = pair(torchs)
    opt = adapters.AdamW(there, lr=0.1)
    set_gradients(torchs, here, there, 0)
    opt.step()
    other = copied(opt)
    for one in (opt, other):
        for param, grad in zip(one.param_groups[0]["params"], here, strict=True):
            param.grad = grad.grad.cuda()
        one.step()
    for mine, theirs in zip(there, other.param_groups[0]["params"], strict=True):
        assert theirs.is_cuda
        assert mine.data_ptr() != theirs.data_ptr() or not mine.numel()
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


# What is refused.


def test_one_device(torchs):
    here, there = pair(torchs, shapes=SHAPES[:2])
    message = (
        r"^all parameters must be on one device: param_groups\[0\]\['params'\]\[0\] is on cuda:0, and "
        r"param_groups\[{}\]\['params'\]\[{}\] on {}; make an optimizer for each device$"
    )
    with pytest.raises(ValueError, match=message.format(0, 1, "cpu")):
        adapters.SGD([there[0], here[1]])
    opt = adapters.SGD([there[0]])
    with pytest.raises(ValueError, match=message.format(1, 0, "cpu")):
        opt.add_param_group({"params": [here[1]]})
    assert len(opt.param_groups) == 1
    if cuda.SIMULATED:
        torchs.number = 1
        elsewhere = torch.nn.Parameter(torchs.there(draw(3, 0)))
        with pytest.raises(ValueError, match=message.format(0, 1, "cuda:1")):
            adapters.SGD([there[0], elsewhere])
        with pytest.raises(
            ValueError,
            match=r"\[0\] is on CUDA device 1, and this thread works on device 0$",
        ):
            adapters.SGD([elsewhere])
        with pytest.raises(
            ValueError, match=r"^params\['w'\] is on CUDA device 1, and this thread works on device 0"
        ):
            fastopt.SGD({"w": elsewhere.detach()})


@pytest.mark.parametrize("name", ["Muon", "SOAP", "Adafactor", "LBFGS", "SparseAdam"])
def test_algorithms_of_the_cpu(torchs, name):
    _, there = pair(torchs, shapes=[(4, 3)])
    with pytest.raises(TypeError, match=rf"^{name} .* on a CUDA device$"):
        getattr(adapters, name)(there)


def test_tensors_that_are_refused(torchs):
    with pytest.raises(
        ValueError, match=r"params'\]\[0\] must be contiguous, in C or Fortran order, because it is on"
    ):
        adapters.SGD([torchs.there(torch.ones(4, 6))[:, ::2]])
    with pytest.raises(TypeError, match=r"must be of torch.float32 or torch.float64, got torch.bfloat16"):
        adapters.SGD([torchs.there(torch.ones(4, dtype=torch.bfloat16))])
    table = torch.nn.Parameter(torchs.there(torch.ones(4, 3)))
    opt = adapters.SGD([table])
    table.grad = torchs.there(torch.ones(4, 3)).to_sparse()
    with pytest.raises(
        TypeError, match=r"must be dense, because it is on a CUDA device; got the layout torch.sparse_coo"
    ):
        opt.step()


# Without the adapter.


def test_tensors_as_arrays(torchs):
    here, there = pair(torchs, shapes=[(4, 3)])
    with pytest.raises(TypeError, match="cannot be seen as an array on a CUDA device, .* use var.detach"):
        fastopt.AdamW(there)
    opt, plain = fastopt.AdamW([there[0].detach()], lr=0.1), fastopt.AdamW([here[0].detach().numpy()], lr=0.1)
    set_gradients(torchs, here, there, 0)
    opt.step([there[0].grad])
    plain.step([here[0].grad.numpy()])
    assert_close(here[0], there[0])
    shown = torch.as_tensor(opt.state[0]["exp_avg"][0], device=there[0].device)
    assert_close(torch.from_numpy(plain.state[0]["exp_avg"][0]), shown)


def test_bfloat16(torchs):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = draw((4, 3), 0, torch.bfloat16)
    there = torchs.there(values)
    array = of(there, "params")
    assert (array.dtype, array.address) == (ml_dtypes.bfloat16, there.data_ptr())
    here = values.float().numpy().astype(ml_dtypes.bfloat16)
    opt, plain = (fastopt.AdamW([each], lr=0.1, master_weights="split") for each in (there, here))
    for seed in range(2):
        grad = draw((4, 3), seed, torch.bfloat16)
        opt.step([torchs.there(grad)])
        plain.step([grad.float().numpy().astype(ml_dtypes.bfloat16)])
    if cuda.SIMULATED:
        np.testing.assert_array_equal(there.cpu().float().numpy(), here.astype(np.float32))


# On a device.


@pytest.mark.gpu
def test_training_on_a_stream_and_in_a_graph(torchs):
    torch.manual_seed(0)
    here = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    there = copy.deepcopy(here).cuda()
    x, y = torch.randn(256, 64), torch.randint(10, (256,))
    losses = []
    for model, data, target in ((here, x, y), (there, x.cuda(), y.cuda())):
        opt = adapters.AdamW(model.named_parameters(), lr=1e-2, no_decay="*.bias", max_grad_norm=1.0)
        if model is there:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            torch.cuda.set_stream(side)
        for _ in range(50):
            opt.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(data), target)
            loss.backward()
            opt.step()
        losses.append(loss.item())
    torch.cuda.set_stream(torch.cuda.default_stream())
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.gpu
def test_a_graph_takes_the_steps_that_are_prepared(torchs):
    here, there = pair(torchs)
    one, other = (adapters.AdamW(params, lr=0.1) for params in (here, there))
    set_gradients(torchs, here, there, 0)
    grads = [param.grad for param in there]
    one.step()
    other.step()  # compiles
    graph = torch.cuda.CUDAGraph()
    other.fastopt.prepare_step(grads)
    with torch.cuda.graph(graph):
        other.fastopt.launch_step()
    graph.replay()
    one.step()
    for lr in (0.05, 0.01):
        for opt in (one, other):
            opt.param_groups[0]["lr"] = lr
        other.fastopt.prepare_step(grads)
        graph.replay()
        one.step()
    torch.cuda.synchronize()
    assert_alike(one, other, here, there)
