"""ResNet-50's trunk and MobileNetV2 in plain PyTorch, with the names of our parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional

# Expansion, output channels, repeats, stride of each sequence of MobileNetV2.
SEQUENCES = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip
# Units, output channels, stride, dilation of each stage of the ResNet.
STAGES = ((3, 256, 1, 1), (4, 512, 2, 1), (6, 1024, 2, 1), (3, 2048, 1, 2))


def named_parameters(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters under the names that MXNet has for them."""
    for name, module in network.named_modules():
        layer = name.rpartition(".")[2]
        if isinstance(module, nn.Conv2d):
            yield f"{layer}_weight", module.weight
        elif isinstance(module, nn.BatchNorm2d):
            yield f"{layer}_gamma", module.weight
            yield f"{layer}_beta", module.bias


def convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1
) -> nn.Conv2d:
    pad = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=False)


class MobileNetV2(nn.Module):
    """As torchvision's, up to the last convolution: ReLU6 in place."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [conv_block("first-3x3-conv", 3, 32, kernel=3, stride=2)]
        channels = 32
        for index, (expansion, outputs, repeats, stride) in enumerate(SEQUENCES):
            for repeat in range(repeats):
                name = f"seq-{index}-block{repeat}"
                step = stride if repeat == 0 else 1
                blocks.append(InvertedResidual(name, channels, outputs, expansion, step, repeat))
                channels = outputs
        blocks.append(conv_block("last-1x1-conv", channels, 1280))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return self.blocks(data)


class InvertedResidual(nn.Module):
    def __init__(
        self, name: str, inputs: int, outputs: int, expansion: int, stride: int, repeat: int
    ) -> None:
        super().__init__()
        expanded = inputs * expansion
        self.body = nn.Sequential(
            conv_block(f"{name}-exp", inputs, expanded),
            conv_block(f"{name}-depthwise", expanded, expanded, 3, stride, expanded),
            conv_block(f"{name}-linear", expanded, outputs, activate=False),
        )
        self.residual = repeat > 0

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        body = self.body(data)
        return data + body if self.residual else body


def conv_block(
    name: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1,
    *, activate: bool = True,
) -> nn.Sequential:  # fmt: skip
    block = nn.Sequential()
    conv = convolution(inputs, outputs, kernel, stride, groups=groups)
    block.add_module(f"{name}-conv2d", conv)
    block.add_module(f"{name}-batchnorm", nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.005))
    if activate:
        block.add_module(f"{name}-relu6", nn.ReLU6(inplace=True))
    return block


class ResNet50(nn.Module):
    """Pre-activation ResNet-50 without deformable units: stage 3 and stage 4, both at stride 16."""

    def __init__(self) -> None:
        super().__init__()
        self.bn_data = norm(3)
        self.bn_data.weight.requires_grad_(False)  # MXNet's fix_gamma
        self.conv0 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn0 = norm(64)
        channels, stages = 64, []
        for stage, (units, outputs, stride, dilation) in enumerate(STAGES, 1):
            body = nn.Sequential()
            for unit in range(1, units + 1):
                name = f"stage{stage}_unit{unit}"
                step = stride if unit == 1 else 1
                body.add_module(name, Bottleneck(name, channels, outputs, step, dilation))
                channels = outputs
            stages.append(body)
        self.stages = nn.ModuleList(stages)

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        body = functional.relu_(self.bn0(self.conv0(self.bn_data(data))))
        body = functional.max_pool2d(body, 3, 2, 1)
        for stage in self.stages[:3]:
            body = stage(body)
        return torch.cat([body, self.stages[3](body)], 1)


class Bottleneck(nn.Module):
    def __init__(self, name: str, inputs: int, outputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.name = name
        middle = outputs // 4
        layers = {
            "bn1": norm(inputs),
            "conv1": convolution(inputs, middle),
            "bn2": norm(middle),
            "conv2": convolution(middle, middle, 3, stride, dilation),
            "bn3": norm(middle),
            "conv3": convolution(middle, outputs),
        }
        if inputs != outputs:
            layers["sc"] = convolution(inputs, outputs, 1, stride)
        self.layers = nn.ModuleDict({f"{name}_{key}": layer for key, layer in layers.items()})

    def forward(self, data: torch.Tensor) -> torch.Tensor:
        layers = {key.rpartition("_")[2]: layer for key, layer in self.layers.items()}
        first = functional.relu_(layers["bn1"](data))
        body = functional.relu_(layers["bn2"](layers["conv1"](first)))
        body = functional.relu_(layers["bn3"](layers["conv2"](body)))
        return layers["conv3"](body) + (layers["sc"](first) if "sc" in layers else data)


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=2e-5, momentum=0.005)


NETWORKS = {"ResNet-50": ResNet50, "MobileNetV2": MobileNetV2}
