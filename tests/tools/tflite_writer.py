"""Writes small TensorFlow Lite files from scratch, by the public schema."""

from __future__ import annotations

import struct

import numpy as np

CODES = {"conv": 3, "depthwise": 4, "dequantize": 6, "add": 0}
SAME, ACTIVATIONS = 0, {"none": 0, "relu": 1, "relu6": 3}


class Builder:
    """FlatBuffers, written front to back: tables first, then what they point to."""

    def __init__(self):
        self.data = bytearray(8)
        self.data[4:8] = b"TFL3"

    def patch(self, at, target):
        struct.pack_into("<I", self.data, at, target - at)

    def table(self, fields):
        """`fields`: slot -> ("B" | "b" | "i" | "I", value) or ("offset", write function)."""
        slots = max(fields, default=-1) + 1
        body, offsets, late = bytearray(4), [0] * slots, []
        for slot, (kind, value) in fields.items():
            offsets[slot] = len(body)
            if kind == "offset":
                late.append((len(body), value))
                body += bytes(4)
            else:
                body += struct.pack(f"<{kind}", value)
                body += bytes(-len(body) % 4)
        vtable = len(self.data)
        self.data += struct.pack(f"<HH{slots}H", 4 + 2 * slots, len(body), *offsets)
        self.data += bytes(-len(self.data) % 4)
        position = len(self.data)
        struct.pack_into("<i", body, 0, position - vtable)
        self.data += body
        for at, write in late:
            self.patch(position + at, write())
        return position

    def tables(self, writers):
        position = len(self.data)
        self.data += struct.pack("<I", len(writers)) + bytes(4 * len(writers))
        for index, write in enumerate(writers):
            self.patch(position + 4 + 4 * index, write())
        return position

    def integers(self, values):
        position = len(self.data)
        self.data += struct.pack(f"<I{len(values)}i", len(values), *values)
        return position

    def content(self, data):
        position = len(self.data)
        self.data += struct.pack("<I", len(data)) + data
        self.data += bytes(-len(self.data) % 4)
        return position


class Model:
    """A chain of convolutions; constants are float16 behind a DEQUANTIZE each, as in real files."""

    def __init__(self):
        self.tensors, self.buffers, self.operators = [((1,), 0, 0)], [b""], []
        self.last = 0  # the tensor that the next layer reads

    def constant(self, array):
        self.buffers.append(array.astype("<f2").tobytes())
        self.tensors.append((array.shape, 1, len(self.buffers) - 1))
        half = len(self.tensors) - 1
        full = self.result()
        self.operators.append(("dequantize", [half], [full], {}))
        return full

    def result(self):
        self.tensors.append(((1,), 0, 0))
        return len(self.tensors) - 1

    def conv(self, weight, bias, *, stride=1, activation="none", source=None):
        """`weight` as ours: (O, I, kh, kw), or (C, 1, kh, kw) which is depthwise."""
        depthwise = weight.shape[1] == 1 and weight.shape[2] > 1
        stored = weight.transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        inputs = [self.last if source is None else source]
        inputs += [self.constant(stored), self.constant(bias)]
        self.last = self.result()
        options = {0: ("b", SAME), 1: ("i", stride), 2: ("i", stride)}
        options[4 if depthwise else 3] = ("b", ACTIVATIONS[activation])
        kind = "depthwise" if depthwise else "conv"
        self.operators.append((kind, inputs, [self.last], options))

    def add(self, other):
        sources, self.last = [self.last, other], self.result()
        self.operators.append(("add", sources, [self.last], {}))

    def tobytes(self):
        b = Builder()
        codes = list(CODES)

        def tensor(shape, kind, buffer):
            return lambda: b.table(
                {0: ("offset", lambda: b.integers(shape)), 1: ("b", kind), 2: ("I", buffer)}
            )

        def operator(kind, inputs, outputs, options):
            fields = {
                0: ("I", codes.index(kind)),
                1: ("offset", lambda: b.integers(inputs)),
                2: ("offset", lambda: b.integers(outputs)),
            }
            if options:
                fields[4] = ("offset", lambda: b.table(options))
            return lambda: b.table(fields)

        def graph():
            tensors = [tensor(*entry) for entry in self.tensors]
            operators = [operator(*entry) for entry in self.operators]
            return b.table(
                {
                    0: ("offset", lambda: b.tables(tensors)),
                    3: ("offset", lambda: b.tables(operators)),
                }
            )

        code_tables = [lambda c=CODES[name]: b.table({0: ("b", c), 3: ("i", c)}) for name in codes]
        buffers = [
            lambda data=data: b.table({0: ("offset", lambda: b.content(data))} if data else {})
            for data in self.buffers
        ]
        root = b.table(
            {
                0: ("I", 3),
                1: ("offset", lambda: b.tables(code_tables)),
                2: ("offset", lambda: b.tables([graph])),
                4: ("offset", lambda: b.tables(buffers)),
            }
        )
        struct.pack_into("<I", b.data, 0, root)
        return bytes(b.data)


def folded_mobilenet(layers, blocks):
    """Folded MobileNetV2 layers by name -> the bytes of a file with a head in the middle."""
    model = Model()

    def conv(name, **options):
        model.conv(layers[f"{name}_weight"], layers[f"{name}_bias"], **options)

    conv("conv0", stride=2, activation="relu6")
    channels = 32
    for index, (expansion, out, stride) in enumerate(blocks):
        before = model.last
        if expansion > 1:
            conv(f"b{index}_exp", activation="relu6")
        if index == 13:
            trunk = model.last
            model.conv(np.ones((12, channels * expansion, 1, 1)), np.zeros(12))
            model.last = trunk
        conv(f"b{index}_dw", stride=stride, activation="relu6")
        conv(f"b{index}_proj")
        if stride == 1 and channels == out:
            model.add(before)
        channels = out
    conv("conv_last", activation="relu6")
    model.conv(np.ones((24, 1280, 1, 1)), np.zeros(24))
    return model.tobytes()
