"""What only a device shows: streams that overlap, graphs of CUDA, arrays of other libraries."""

import numpy as np
import pytest

import fastopt
from fastopt.engine import cuda, device

pytestmark = pytest.mark.gpu

F = np.float32
SIZE = 1 << 20  # large enough for a step to be under way when the host goes on


def arrays(seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(size).astype(F), [rng.standard_normal(size).astype(F) for _ in range(4)]


def reference(make, params, grads, **options):
    """Return what the CPU makes of it."""
    params = params.copy()
    opt = make(params, **options)
    for grad in grads:
        opt.step(grad.copy())
    return params


def assert_near(got, want):
    np.testing.assert_allclose(got, want, 1e-5, 1e-6)


@pytest.mark.parametrize("name", ["AdamW", "LAMB", "Prodigy"])
def test_large_arrays(name):
    """Many blocks of threads, some of which do several tiles."""
    params, grads = arrays(size=(1 << 22) + 3)
    pack = fastopt.pack([params], device="cuda")
    opt = getattr(fastopt, name)(pack, lr=0.01)
    for grad in grads:
        pack.flat_grads.copy_to_device(grad)
        opt.step()
    assert_near(pack.flat.copy_to_host(), reference(getattr(fastopt, name), params, grads, lr=0.01))


def test_a_run_repeats_bit_for_bit():
    params, grads = arrays()
    found = []
    for _ in range(2):
        pack = fastopt.pack([params], device="cuda")
        opt = fastopt.LAMB(pack, lr=0.01, max_grad_norm=1.0)
        for grad in grads:
            pack.flat_grads.copy_to_device(grad)
            opt.step()
        found.append(pack.flat.copy_to_host().tobytes())
    assert found[0] == found[1]


def test_arrays_of_numba():
    numba = cuda.package()
    params, grads = arrays()
    there = numba.to_device(params)
    opt = fastopt.AdamW([there], lr=0.01)
    for grad in grads:
        opt.step([numba.to_device(grad)])
    assert_near(there.copy_to_host(), reference(fastopt.AdamW, params, grads, lr=0.01))


def test_steps_are_in_the_order_of_their_stream():
    """Gradients are written, on the same stream, while the step before may be under way."""
    numba = cuda.package()
    params, grads = arrays()
    pack, stream = fastopt.pack([params], device="cuda"), numba.stream()
    opt = fastopt.AdamW(pack, lr=0.01, max_grad_norm=1.0)
    sources = [device.asarray(grad) for grad in grads]
    with device.on_stream(int(stream.handle.value if hasattr(stream.handle, "value") else stream.handle)):
        for source in sources:
            pack.flat_grads.copy_to_device(source)
            opt.step()
        found = pack.flat.copy_to_host()
    assert_near(found, reference(fastopt.AdamW, params, grads, lr=0.01, max_grad_norm=1.0))


def test_the_host_may_be_many_steps_ahead():
    """More than there are places for what it tells the device."""
    params, grads = arrays()
    pack = fastopt.pack([params], device="cuda")
    pack.flat_grads.copy_to_device(grads[0])
    opt = fastopt.SGD(pack, lr=lambda count: 0.001 * (count + 1), weight_decay=0.1)
    for _ in range(200):
        opt.step()
    want = reference(
        fastopt.SGD, params, grads[:1] * 200, lr=lambda count: 0.001 * (count + 1), weight_decay=0.1
    )
    np.testing.assert_allclose(pack.flat.copy_to_host(), want, 1e-3, 1e-4)


# Torch.


@pytest.fixture
def torch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch has no device")
    return torch


OPTIONS = [
    {},
    {"max_grad_norm": 1.0},
    {"skip_nonfinite": True, "lr": lambda count: 0.01 / (1 + count)},
    {"ema_decay": 0.9},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "plain")
def test_tensors_of_torch_on_a_stream_of_their_own(torch, options):
    params, grads = arrays()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        w = torch.tensor(params, device="cuda")
        opt = fastopt.AdamW([w], **{"lr": 0.01, **options})
        for grad in grads:
            opt.step([torch.tensor(grad, device="cuda")])
        found = w.cpu().numpy()
    assert_near(found, reference(fastopt.AdamW, params, grads, **{"lr": 0.01, **options}))


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ", ".join(options) or "plain")
@pytest.mark.parametrize("name", ["AdamW", "LAMB", "DoG"])
def test_graphs_of_cuda(torch, name, options):
    params, grads = arrays()
    w, g = (torch.tensor(each, device="cuda") for each in (params, grads[0]))
    options = {"lr": 0.01, **options}
    opt = getattr(fastopt, name)([w], **options)
    graph = torch.cuda.CUDAGraph()
    opt.step([g])
    torch.cuda.synchronize()
    for i, grad in enumerate(grads[1:]):
        g.copy_(torch.tensor(grad))
        if i == 0:
            opt.prepare_step([g])
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                opt.launch_step()
        else:
            opt.prepare_step([g])
        graph.replay()
    torch.cuda.synchronize()
    assert_near(w.cpu().numpy(), reference(getattr(fastopt, name), params, grads, **options))


def test_the_scale_of_the_loss_is_read_without_waiting(torch):
    w = torch.ones(5, device="cuda")
    opt = fastopt.SGD([w], lr=0.5, grad_scaler=fastopt.GradScaler(init_scale=4.0))
    opt.step([torch.full((5,), 8.0, device="cuda")])
    scale = torch.as_tensor(opt.grad_scaler.scale_array, device="cuda")
    assert scale.item() == 4.0
    assert w.tolist() == [0.0] * 5
    opt.step([torch.full((5,), float("nan"), device="cuda")])
    assert scale.item() == 2.0
    assert w.tolist() == [0.0] * 5


# CuPy.


def test_arrays_of_cupy():
    cupy = pytest.importorskip("cupy")
    params, grads = arrays()
    with cupy.cuda.Stream(non_blocking=True):
        w = cupy.asarray(params)
        opt = fastopt.AdamW([w], lr=0.01)
        for grad in grads:
            opt.step([cupy.asarray(grad)])
        found = w.get()
    assert_near(found, reference(fastopt.AdamW, params, grads, lr=0.01))


def test_packs_are_shown_to_cupy():
    cupy = pytest.importorskip("cupy")
    pack = fastopt.pack({"w": np.ones((2, 3), F)}, device="cuda")
    view = cupy.asarray(pack.params["w"])
    view += 1
    assert (pack.params["w"].copy_to_host() == 2).all()
