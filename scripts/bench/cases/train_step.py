"""A training step on 512x512 px: forward, backward from a given head gradient, SGD with momentum.

ResNet-50: stages 1 to 4, no deformable units. MobileNetV2: to the last 1x1 convolution, stride 32.
Every batch norm uses the batch and every parameter is trained. The batch lies in the network's
input already; a run ends when all weights are written.

Sides
* ours: the symbols of `sniper.models` in an executor, as training on a CPU runs them, and the
  optimizer of `sniper.training`.
* torch: `peers/torch_networks.py`, eager, default memory layout (channels first), fused SGD.
* torch-channels-last: the same with network and data in torch.channels_last.
* torch-compile: that, through torch.compile (needs a C++ compiler; its first step takes minutes).

All start with the same weights. Compared after the first step: features, as one vector, to 1e-2 of
its length, the gradients of all parameters likewise to 2e-1, and the updates apart from the
gradients (weights plus learning rate times gradient) to 1e-4 of each array's largest value. It
cannot be closer: float32 rounding moves values across the limits of the activations, and each one
changes whole paths of the gradient. PyTorch's own two layouts differ by 1e-3 and 5e-2.

The ratio is our time as a share of the peer's: below 1 we are faster.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bench import compare as agreement
from bench.case import Arrays, Case, Job, OutputsDifferError, PeerMissingError, Prepared, Side

PX = 512
FEATURES = {"ResNet-50": (3072, 32), "MobileNetV2": (1280, 16)}  # channels, cells per side
LEARNING_RATE, MOMENTUM, DECAY = 1e-3, 0.9, 1e-4
UNUSED = ("bn_data_gamma",)  # fixed at 1; MXNet writes zeros as its gradient
GRADIENT, WEIGHT = "gradient of ", "weight "
FEATURES_TO, GRADIENTS_TO, UPDATES_TO = 1e-2, 2e-1, 1e-4


def inputs(rng: np.random.Generator, network: str, batch: int) -> Arrays:
    """Images, a head gradient, and the seed of the weights."""
    channels, cells = FEATURES[network]
    return {
        "data": rng.normal(size=(batch, 3, PX, PX)).astype(np.float32),
        "head": rng.normal(0, 1e-3, (batch, channels, cells, cells)).astype(np.float32),
        "seed": rng.integers(2**31, size=1),
    }


def initial(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Starting value of a parameter; both sides make it from its name."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name in UNUSED:
        return np.ones(shape, np.float32)
    if name.endswith("_weight"):
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    return rng.normal(1 if name.endswith("_gamma") else 0, 0.1, shape).astype(np.float32)


def ours(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    import sniper  # noqa: F401, I001 (prepares the process for MXNet)
    import mxnet as mx
    from sniper.models.cpu_graph import for_training_on_cpu
    from sniper.training.sgd import Sgd
    from sniper.training.step_settings import StepSettings

    shapes = {"data": arrays["data"].shape}
    symbol = for_training_on_cpu(network_symbol(params["network"]), shapes)
    names = [name for name in symbol.list_arguments() if name not in ("data", *UNUSED)]
    executor = symbol.simple_bind(
        mx.cpu(),
        **shapes,
        grad_req={name: "write" if name in names else "null" for name in symbol.list_arguments()},
    )
    seed = int(arrays["seed"][0])
    for name, value in executor.arg_dict.items():
        value[:] = arrays["data"] if name == "data" else initial(seed, name, value.shape)
    for name, value in executor.aux_dict.items():
        value[:] = 1 if name.endswith("_var") else 0
    head = mx.nd.array(arrays["head"])
    weights = {name: executor.arg_dict[name] for name in names}
    gradients = {name: executor.grad_dict[name] for name in names}
    settings = StepSettings(lr=LEARNING_RATE, momentum=MOMENTUM, wd=DECAY)
    optimizer = Sgd(symbol, weights, settings)

    def step() -> Any:
        executor.forward(is_train=True)
        executor.backward([head])
        optimizer.update(gradients)
        mx.nd.waitall()
        return executor.outputs[0]

    def outputs(features: Any) -> Arrays:
        arrays = {"features": features.asnumpy()}
        for name in names:
            arrays[f"{GRADIENT}{name}"] = gradients[name].asnumpy()
            arrays[f"{WEIGHT}{name}"] = weights[name].asnumpy()
        return arrays

    return Prepared(step, outputs)


def network_symbol(network: str) -> Any:
    import mxnet as mx

    from sniper.models.backbones import mobilenetv2, resnet
    from sniper.models.backbones.blocks import NormSettings

    data, settings = mx.sym.Variable("data"), NormSettings()
    if network == "ResNet-50":
        arch = dataclasses.replace(resnet.RESNET_50, deformable=False, frozen_stem=False)
        return resnet.resnet_features(data, arch, settings)["stage3_4"]
    return mobilenetv2.mobilenetv2_features(data, mobilenetv2.MobileNetOptions(settings))


def torch(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return torch_side(arrays, params, threads, "contiguous_format")


def torch_channels_last(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return torch_side(arrays, params, threads, "channels_last")


def torch_compile(arrays: Arrays, params: Mapping[str, Any], threads: int) -> Prepared:
    return torch_side(arrays, params, threads, "channels_last", compiled=True)


def torch_side(
    arrays: Arrays,
    params: Mapping[str, Any],
    threads: int,
    layout: str,
    *,
    compiled: bool = False,
) -> Prepared:
    try:
        import torch

        from bench.peers import torch_networks
    except ImportError as error:
        raise PeerMissingError(f"torch is not installed ({error})") from error
    torch.set_num_threads(threads)
    memory_format = getattr(torch, layout)
    network = torch_networks.NETWORKS[params["network"]]().train()
    seed = int(arrays["seed"][0])
    named = dict(torch_networks.named_parameters(network))
    with torch.no_grad():
        for name, value in named.items():
            value.copy_(torch.from_numpy(initial(seed, name, tuple(value.shape))))
    network = network.to(memory_format=memory_format)
    data, head = (
        torch.from_numpy(arrays[key]).contiguous(memory_format=memory_format)
        for key in ("data", "head")
    )
    trained = {name: value for name, value in named.items() if name not in UNUSED}
    decayed = [value for name, value in trained.items() if not name.endswith("_beta")]
    others = [value for name, value in trained.items() if name.endswith("_beta")]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": DECAY}, {"params": others}],
        LEARNING_RATE,
        momentum=MOMENTUM,
        fused=True,
    )
    forward = torch.compile(network) if compiled else network

    def step() -> Any:
        optimizer.zero_grad()
        features = forward(data)
        features.backward(head)
        optimizer.step()
        return features

    def outputs(features: Any) -> Arrays:
        arrays = {"features": features.detach().numpy()}
        for name, value in trained.items():
            arrays[f"{GRADIENT}{name}"] = value.grad.numpy()
            arrays[f"{WEIGHT}{name}"] = value.detach().numpy()
        return arrays

    return Prepared(step, outputs)


def compare(ours: Arrays, peer: Arrays, job: Job, peer_name: str) -> str:
    if ours.keys() != peer.keys():
        odd = sorted(ours.keys() ^ peer.keys())
        raise OutputsDifferError(f"only one side has {', '.join(odd[:5])}")
    gradients = [key for key in ours if key.startswith(GRADIENT)]
    sentences = [
        close_length(ours, peer, ["features"], "features", FEATURES_TO),
        close_length(ours, peer, gradients, f"{len(gradients)} gradients", GRADIENTS_TO),
    ]
    for name in (key.removeprefix(GRADIENT) for key in gradients):
        steps = [
            side[WEIGHT + name] + LEARNING_RATE * side[GRADIENT + name] for side in (ours, peer)
        ]
        agreement.close_array(*steps, f"update of {name}", UPDATES_TO)
    return f"{', '.join(sentences)}, updates to {UPDATES_TO:.0e}"


def close_length(
    ours: Arrays, peer: Arrays, keys: Sequence[str], what: str, tolerance: float
) -> str:
    """Distance of some arrays, seen as one vector, in units of the peer's length."""
    if any(ours[key].shape != peer[key].shape for key in keys):
        raise OutputsDifferError(f"{what}: other shapes")
    distance = length(ours[key] - peer[key] for key in keys) / length(peer[key] for key in keys)
    sentence = f"{what} to {distance:.1e} of their length"
    return agreement.require(distance <= tolerance, sentence, f"at most {tolerance:.0e}")


def length(arrays: Iterable[np.ndarray]) -> float:
    """Of all arrays as one vector."""
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))


def job(network: str, batch: int, *peers: str) -> Job:
    goal = {"torch-channels-last": 1.0}
    if network == "MobileNetV2":
        goal["torch"] = 1.5
        if batch == 1:
            goal["torch-compile"] = 1.0
    return Job(
        f"{network}, batch {batch}",
        lambda rng: inputs(rng, network, batch),
        {"network": network},
        peers=peers or None,
        goal=goal,
    )


CASE = Case(
    name="train_step",
    summary="forward, backward and SGD update of a backbone at 512x512",
    jobs=[
        job("MobileNetV2", 1),
        job("MobileNetV2", 8),
        job("ResNet-50", 1),
        job("ResNet-50", 4, "torch-channels-last"),  # another side would need 5 GB more
    ],
    sides={
        "ours": Side(ours),
        "torch": Side(torch, foreign=True),
        "torch-channels-last": Side(torch_channels_last, foreign=True),
        "torch-compile": Side(torch_compile, foreign=True),
    },
    compare=compare,
    share=True,
)
