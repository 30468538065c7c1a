"""The same network in PyTorch: its own modules, our numbers, our names."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bnengine import layers as bn
from bnengine.network.sequential import Sequential
from bnengine.optim.optimizers import Optimizer
from tests.activations import ORACLES
from tests.optimizers import TABLE
from tests.support import require


def array(tensor: Any) -> np.ndarray:
    """A new NumPy array of a tensor's values."""
    values: np.ndarray = tensor.detach().cpu().numpy().copy()
    return values


class Twin:
    """`torch.nn` modules for the layers of a network, in float64 by default, holding that network's numbers.

    axes: of the input, which decides between BatchNorm1d, 2d and 3d; features are our last axis and PyTorch's second.
    masks: what dropouts keep, in the order of the layers.
    """

    def __init__(self, network: Sequential, *, dtype: str = "float64", axes: int = 2) -> None:
        self.torch = require("torch")
        self.dtype, self.axes = getattr(self.torch, dtype), axes
        self.layers, self.cancelled = network.layers, set(network.cancelled)
        self.modules: dict[int, Any] = {}
        self.tensors: dict[str, Any] = {}
        self._build(network.layers, "")
        self.load(network.state_dict())
        self.masks: list[Any] = []

    def _build(self, given: Iterable[bn.Layer], prefix: str) -> None:
        nn = self.torch.nn
        for i, layer in enumerate(given):
            place = f"{prefix}{i}"
            if id(layer) in self.modules:
                continue
            if isinstance(layer, bn.Dense):
                biased = layer.b is not None and f"{place}.b" not in self.cancelled
                module = nn.Linear(layer.inputs, layer.outputs, bias=biased, dtype=self.dtype)
                self.tensors[f"{place}.W"] = module.weight
                if biased:
                    self.tensors[f"{place}.b"] = module.bias
            elif isinstance(layer, bn.BatchNorm):
                module = self._batch_norm(layer, place)
            elif isinstance(layer, bn.Residual):
                module = None
                self._build(layer.body, f"{place}.")
            else:
                module = self._activation(layer) if isinstance(layer, bn.Activation) else None
            self.modules[id(layer)] = module

    def _batch_norm(self, layer: bn.BatchNorm, place: str) -> Any:
        cls = {2: "BatchNorm1d", 3: "BatchNorm1d", 4: "BatchNorm2d", 5: "BatchNorm3d"}[self.axes]
        momentum = None if layer.decay is None else 1 - layer.decay
        module = getattr(self.torch.nn, cls)(layer.channels, eps=layer.eps, momentum=momentum, dtype=self.dtype)
        for name, own, theirs in (("gamma", layer.gamma, module.weight), ("beta", layer.beta, module.bias)):
            if own is None:
                theirs.requires_grad_(False)
            else:
                self.tensors[f"{place}.{name}"] = theirs
        self.tensors[f"{place}.running_mean"] = module.running_mean
        self.tensors[f"{place}.running_var"] = module.running_var
        return module

    def _activation(self, layer: bn.Activation) -> Any:
        return ORACLES[layer.kind].torch(self.torch.nn, layer.slope)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over the numbers of a network's `state_dict`."""
        with self.torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.torch.as_tensor(np.array(_turned(name, state[name]))))

    def __call__(self, x: Any, *, training: bool) -> Any:
        """The output for x with features last, as ours is."""
        for module in self.modules.values():
            if module is not None:
                module.train(training)
        self.waiting = list(self.masks)
        return self._chain(self.layers, x, training)

    def _chain(self, given: Iterable[bn.Layer], x: Any, training: bool) -> Any:
        for layer in given:
            x = self._one(layer, x, training)
        return x

    def _one(self, layer: bn.Layer, x: Any, training: bool) -> Any:
        if isinstance(layer, bn.Residual):
            return x + self._chain(layer.body, x, training)
        if isinstance(layer, bn.Dropout):
            return x * self.waiting.pop(0) / (1 - layer.rate) if training else x
        if isinstance(layer, bn.BatchNorm):
            return self.modules[id(layer)](x.movedim(-1, 1)).movedim(1, -1)
        return self.modules[id(layer)](x)

    def tensor(self, x: Any, *, leaf: bool = False) -> Any:
        """A tensor of the twin's dtype; a leaf collects its gradient."""
        made = self.torch.tensor(np.asarray(x), dtype=self.dtype)
        return made.requires_grad_() if leaf else made

    def values(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics by our names, in our orientation."""
        return {name: _turned(name, array(tensor)) for name, tensor in self.tensors.items()}

    def gradients(self) -> dict[str, np.ndarray]:
        """Gradients of the parameters by our names, in our orientation."""
        return {n: _turned(n, array(t.grad)) for n, t in self.tensors.items() if t.requires_grad}

    def state(self, optimizer: Any, ours: str, name: str) -> dict[str, np.ndarray]:
        """One slot of the state of the optimizer `name` by our names."""
        trained = {n: t for n, t in self.tensors.items() if t.requires_grad}
        return {n: _turned(n, array(optimizer.state[t][TABLE[name].state.get(ours, ours)])) for n, t in trained.items()}

    def groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups that decay the weights, and leave gamma, beta and biases alone."""
        trained = {n: t for n, t in self.tensors.items() if t.requires_grad}
        weights = [t for n, t in trained.items() if n.endswith(".W")]
        others = [t for n, t in trained.items() if not n.endswith(".W")]
        return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]

    def optimizer(self, ours: Optimizer) -> Any:
        """PyTorch's optimizer of the same hyperparameters; None where it has none."""
        found = TABLE[ours.name].torch(self.torch.optim, ours)
        if found is None:
            return None
        cls, options = found
        return cls(self.groups(getattr(ours, "weight_decay", 0.0)), lr=1.0, **options)


def _turned(name: str, values: np.ndarray) -> np.ndarray:
    """Our W is (inputs, outputs), PyTorch's weight (outputs, inputs)."""
    return values.T if name.endswith(".W") else values
