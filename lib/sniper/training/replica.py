"""One device's copy of the network: its executor, its share of the batch, its gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mxnet as mx
import numpy as np

from sniper.errors import TrainingError
from sniper.models.cpu_graph import for_training_on_cpu

Arrays = dict[str, mx.nd.NDArray]


class Replica:
    """A network bound for training on one device.

    Args:
        symbol: the network with its losses.
        device: where it runs.
        input_shapes: shapes of all data and labels of this device, by name.
        trained: names of the parameters that get gradients.
    """

    def __init__(
        self,
        symbol: mx.sym.Symbol,
        device: mx.Context,
        input_shapes: Mapping[str, tuple[int, ...]],
        trained: Sequence[str],
    ) -> None:
        self.device = device
        self._inputs = dict(input_shapes)
        with_gradient = set(trained)
        # Never "add" for accumulated batches: MXNet 1.9.1 does not pass it on to operators of
        # libraries, which would overwrite. `GradientSum` adds up instead.
        self._grad_req = {
            name: "write" if name in with_gradient else "null" for name in symbol.list_arguments()
        }
        self._executor = self._as_run(symbol).simple_bind(
            device,
            grad_req=self._grad_req,
            type_dict={name: np.float32 for name in input_shapes},
            **self._inputs,
        )
        self.trained = [name for name in symbol.list_arguments() if name in with_gradient]

    def _as_run(self, symbol: mx.sym.Symbol) -> mx.sym.Symbol:
        if self.device.device_type != "cpu":
            return symbol
        return for_training_on_cpu(symbol, self._inputs)

    @property
    def parameters(self) -> Arrays:
        """All parameters by name; live arrays."""
        arg = self._executor.arg_dict
        return {name: value for name, value in arg.items() if name not in self._inputs}

    @property
    def statistics(self) -> Arrays:
        """All auxiliary states (running averages of BatchNorm) by name; live arrays."""
        return self._executor.aux_dict

    @property
    def gradients(self) -> Arrays:
        """Gradients of the trained parameters in the order of the graph; live arrays."""
        gradients = self._executor.grad_dict
        return {name: gradients[name] for name in self.trained}

    def set_parameters(self, arg: Arrays, aux: Arrays) -> None:
        """Copies parameters and statistics in; types are converted.

        Raises:
            TrainingError: one is missing.
        """
        missing = [name for name in self.parameters if name not in arg]
        missing += [name for name in self.statistics if name not in aux]
        if missing:
            raise TrainingError(
                "the weights are not those of this network",
                got=f"{len(missing)} missing, the first is {missing[0]}",
            )
        self._executor.copy_params_from(arg, aux)

    def load(self, arrays: Mapping[str, np.ndarray], rows: slice) -> None:
        """Copies the rows of a batch in."""
        arguments = self._executor.arg_dict
        for name in self._inputs:
            if name not in arrays:
                raise TrainingError("the batch lacks an input of the network", got=name)
            arguments[name][:] = arrays[name][rows]

    def run(self) -> None:
        """Starts forward and backward on what was loaded; returns before they are done.

        Load all replicas before the first one runs: a copy from NumPy passes through the queue of
        `cpu(0)`, behind all that the first replica has to do.
        """
        self._executor.forward(is_train=True)
        self._executor.backward()

    @property
    def outputs(self) -> list[mx.nd.NDArray]:
        """Outputs of the last forward pass."""
        return self._executor.outputs

    def replace_symbol(self, symbol: mx.sym.Symbol) -> None:
        """Runs another network with the same arguments from now on, on the same arrays."""
        old = self._executor
        # With `shared_exec` the new one works in the old one's memory instead of as much again.
        self._executor = self._as_run(symbol).bind(
            self.device,
            args=old.arg_dict,
            args_grad={name: grad for name, grad in old.grad_dict.items() if grad is not None},
            grad_req=self._grad_req,
            aux_states=old.aux_dict,
            shared_exec=old,
        )
