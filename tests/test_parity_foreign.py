"""torch's and JAX's own arrays as parameters and gradients."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastopt

F = np.float32


def digits():
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype(F), np.eye(10, dtype=F)[y]


def test_tensors_of_torch_are_updated_in_place():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model, peer = torch.nn.Linear(8, 4), torch.nn.Linear(8, 4)
    peer.load_state_dict(model.state_dict())
    params = {name: parameter.detach() for name, parameter in model.named_parameters()}
    opt, theirs = fastopt.AdamW(params, lr=0.01), torch.optim.AdamW(peer.parameters(), lr=0.01)
    x = torch.randn(16, 8)
    for _ in range(5):
        for each in (model, peer):
            each.zero_grad()
            (each(x) ** 2).mean().backward()
        opt.step({name: parameter.grad for name, parameter in model.named_parameters()})
        theirs.step()
    for own, other in zip(model.parameters(), peer.parameters(), strict=True):
        np.testing.assert_allclose(
            own.detach().numpy(), other.detach().numpy(), rtol=8 * np.finfo(F).eps, atol=1e-7
        )


def test_what_torch_refuses():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^params cannot be seen as a NumPy array, Parameter says: .*detach"):
        fastopt.SGD(torch.nn.Parameter(torch.zeros(3)))
    with pytest.raises(TypeError, match=r"^params cannot be seen as a NumPy array, Tensor says: .*meta"):
        fastopt.SGD(torch.zeros(3, device="meta"))
    with pytest.raises(TypeError, match=r"^grads cannot be seen as a NumPy array, Tensor says: "):
        fastopt.SGD(np.zeros(3, F)).step(torch.zeros(3, dtype=torch.bfloat16))


def test_gradients_of_jax_train_a_classifier_as_optax_does():
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    jnp = jax.numpy
    x, y = digits()

    @jax.jit
    def loss(params, x, y):
        logits = jax.nn.log_softmax(x @ params["w"] + params["b"])
        return -(logits * y).sum(axis=1).mean()

    gradient = jax.jit(jax.value_and_grad(loss))
    params = {"w": np.zeros((64, 10), F), "b": np.zeros(10, F)}
    theirs = {name: jnp.array(array) for name, array in params.items()}
    opt, adam = fastopt.Adam(params, lr=0.01), optax.adam(0.01)
    state = adam.init(theirs)
    for _ in range(20):
        own_loss, grads = gradient(params, x, y)
        opt.step(grads)  # JAX's arrays as they are
        their_loss, grads = gradient(theirs, x, y)
        updates, state = adam.update(grads, state)
        theirs = optax.apply_updates(theirs, updates)
        assert float(own_loss) == pytest.approx(float(their_loss), rel=1e-5)
    assert own_loss < 1.25


def test_arrays_of_jax_cannot_be_updated():
    jnp = pytest.importorskip("jax.numpy")
    with pytest.raises(
        ValueError, match="must be writeable, got a read-only ArrayImpl: let NumPy have a copy"
    ):
        fastopt.SGD({"w": jnp.zeros(3)})
    pack = fastopt.pack({"w": jnp.ones(3)})
    assert pack.params["w"].tolist() == [1, 1, 1]
    with pytest.raises(TypeError, match="grads cannot be seen as a NumPy array, ArrayImpl says: "):
        fastopt.SGD(np.zeros(3, F)).step(jnp.zeros(3, "bfloat16"))
