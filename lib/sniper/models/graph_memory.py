"""How much memory a graph needs, told from the graph: nothing is bound, allocated or run."""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sniper.models.lazy import mx

Shape = tuple[int, ...]
# An output of a node: number of the node, number of the output.
Entry = tuple[int, int]
# What lives for some steps: an output, or the gradient of one, of which each reader makes a share.
Key = tuple[str, Entry, int]

_VARIABLE = "null"
# What such an operator puts out is its input, in the same memory.
_VIEWS = {"Reshape", "Flatten", "BlockGrad", "_copy", "identity", "expand_dims"}
# Outputs may take the place of an input that nobody reads any more.
_IN_PLACE = {"Activation", "BatchNorm", "elemwise_add", "add_n", "LeakyReLU", "clip"}
# Gradients of both summands are that of the sum, in the same memory.
_SUMS = {"elemwise_add", "add_n"}
# Which forward arrays the gradient reads; all of them for operators that are not named.
_READS_NOTHING = {
    *("elemwise_add", "add_n", "elemwise_sub", "_plus_scalar", "_minus_scalar", "_mul_scalar"),
    *("_div_scalar", "Reshape", "Flatten", "transpose", "Concat", "SliceChannel", "slice"),
    *("slice_axis", "expand_dims", "Cast", "SwapAxis", "_copy", "identity", "UpSampling"),
}
_READS_OUTPUTS = {"Activation", "SoftmaxOutput", "SoftmaxActivation", "softmax", "LeakyReLU"}
_READS_INPUTS = {
    *("Convolution", "FullyConnected", "Deconvolution", "_contrib_DeformableConvolution"),
    *("elemwise_mul", "broadcast_mul", "smooth_l1", "clip"),
}
_LAYERS_SHOWN = 5
# A free place may be so many times larger or smaller than what shall go there. MXNet's planner
# tries all of these and takes the best.
_PLANNER_REACHES = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class GraphMemory:
    """What a graph needs, in bytes.

    Attributes:
        inputs: data and labels of a batch.
        parameters: all of them, in their own types.
        gradients: of the trained ones.
        optimizer: momenta of the trained ones, and float32 copies where these are float16.
        statistics: running averages.
        activations: outputs of layers and their gradients, as MXNet's planner puts them into
            memory: it uses places again, and cannot fill every gap.
        at_once: most of these that live at one time; less than `activations` by the gaps.
        trained_values: numbers in the trained parameters.
        peak_layer: where that is.
        largest: layers that hold most of it then, and how much.
    """

    inputs: int
    parameters: int
    gradients: int
    optimizer: int
    statistics: int
    activations: int
    at_once: int
    trained_values: int
    peak_layer: str
    largest: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Node:
    """A layer of a graph.

    Attributes:
        name: of the layer.
        op: its operator; `null` for variables.
        attrs: the operator's settings.
        inputs: what it reads.
    """

    name: str
    op: str
    attrs: Mapping[str, str]
    inputs: tuple[Entry, ...]


@dataclass(frozen=True, eq=False)
class SizedGraph:
    """A graph whose sizes are known.

    Attributes:
        nodes: in the order of their computation.
        shapes: of every output that the graph shows.
        item_bytes: bytes of a number of it.
        heads: outputs of the whole graph.
    """

    nodes: tuple[Node, ...]
    shapes: Mapping[Entry, Shape]
    item_bytes: Mapping[Entry, int]
    heads: tuple[Entry, ...]

    def values(self, entry: Entry) -> int:
        """How many numbers an output holds; 0 for one that the graph does not show."""
        return math.prod(self.shapes[entry]) if entry in self.shapes else 0

    def size(self, entry: Entry) -> int:
        """Bytes of an output."""
        return self.values(entry) * self.item_bytes.get(entry, 0)

    def outputs(self, number: int) -> list[Entry]:
        """The outputs of a node."""
        outputs: list[Entry] = []
        while (number, len(outputs)) in self.shapes:
            outputs.append((number, len(outputs)))
        return outputs

    def is_variable(self, entry: Entry) -> bool:
        """Whether it comes from outside: data, labels, parameters, statistics."""
        return self.nodes[entry[0]].op == _VARIABLE


def sized_graph(symbol: mx.sym.Symbol, input_shapes: Mapping[str, Shape]) -> SizedGraph:
    """The graph of a symbol with all shapes and types; inputs are float32.

    Args:
        symbol: a network.
        input_shapes: shapes of data and labels by name.
    """
    internals = symbol.get_internals()
    _, shapes, _ = internals.infer_shape(**input_shapes)
    _, types, _ = internals.infer_type(**{name: np.float32 for name in input_shapes})
    shown = [(head[0], head[1]) for head in json.loads(internals.tojson())["heads"]]
    graph = json.loads(symbol.tojson())
    nodes = tuple(
        Node(
            node["name"],
            node["op"],
            node.get("attrs", {}),
            tuple((entry[0], entry[1]) for entry in node["inputs"]),
        )
        for node in graph["nodes"]
    )
    return SizedGraph(
        nodes,
        dict(zip(shown, map(tuple, shapes))),
        {entry: np.dtype(kind).itemsize for entry, kind in zip(shown, types)},
        tuple((head[0], head[1]) for head in graph["heads"]),
    )


def graph_memory(
    graph: SizedGraph, inputs: Iterable[str], statistics: Iterable[str], trained: Iterable[str]
) -> GraphMemory:
    """Memory of forward passes, or of forward and backward passes where anything is trained.

    Layers are computed in the order of the graph, gradients in the opposite one; an array lives
    from the step that makes it to the last one that reads it.

    Args:
        graph: the network.
        inputs: names of data and labels.
        statistics: names of the running averages.
        trained: names of the parameters that get gradients; none for detection.
    """
    of_inputs, of_statistics, of_trained = set(inputs), set(statistics), set(trained)
    totals: Counter[str] = Counter()
    for number, node in enumerate(graph.nodes):
        entry = (number, 0)
        if node.op != _VARIABLE:
            continue
        if node.name in of_inputs:
            totals["inputs"] += graph.size(entry)
        elif node.name in of_statistics:
            totals["statistics"] += graph.size(entry)
        else:
            totals["parameters"] += graph.size(entry)
        if node.name in of_trained:
            values = graph.values(entry)
            totals["values"] += values
            totals["gradients"] += graph.size(entry)
            # float32 momenta, and masters of halves.
            totals["optimizer"] += 4 * values * (1 if graph.item_bytes[entry] == 4 else 2)
    timeline = _Timeline(graph, of_trained)
    moments = list(_moments(timeline))
    at_once, layer, largest = _most_at_once(timeline, moments)
    return GraphMemory(
        inputs=totals["inputs"],
        parameters=totals["parameters"],
        gradients=totals["gradients"],
        optimizer=totals["optimizer"],
        statistics=totals["statistics"],
        activations=min(_planned(timeline, moments, reach) for reach in _PLANNER_REACHES),
        at_once=at_once,
        trained_values=totals["values"],
        peak_layer=layer,
        largest=largest,
    )


@dataclass(frozen=True)
class _Step:
    """One operator: what it reads and makes; what it makes may replace what it reads last."""

    name: str
    reads: tuple[Key, ...]
    makes: tuple[Key, ...]
    in_place: bool


@dataclass
class _Timeline:
    """The steps of a graph, forward and, where parameters are trained, backward."""

    graph: SizedGraph
    trained: set[str]
    steps: list[_Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._aliases: dict[Entry, Entry] = {}
        self._shares: dict[Entry, list[Key]] = {}
        self._forward()
        if self.trained:
            self._backward()

    def size(self, key: Key) -> int:
        """Bytes of what lives; a gradient is as large as what it belongs to."""
        return self.graph.size(key[1])

    def heads(self) -> list[Key]:
        """What lives to the end."""
        return [_forward_key(self._root(entry)) for entry in self.graph.heads]

    def _root(self, entry: Entry) -> Entry:
        while entry in self._aliases:
            entry = self._aliases[entry]
        return entry

    def _forward(self) -> None:
        for number, node in enumerate(self.graph.nodes):
            if node.op == _VARIABLE:
                continue
            if node.op in _VIEWS:
                self._aliases[(number, 0)] = node.inputs[0]
                continue
            reads = [_forward_key(self._root(entry)) for entry in node.inputs]
            makes = [_forward_key(entry) for entry in self.graph.outputs(number)]
            self._add(node.name, reads, makes, in_place=node.op in _IN_PLACE)

    def _backward(self) -> None:
        wanted = self._wanted()
        for number in range(len(self.graph.nodes) - 1, -1, -1):
            node = self.graph.nodes[number]
            if node.op == _VARIABLE or node.op in _VIEWS or (number, 0) not in wanted:
                continue
            gradients = [self._summed(entry) for entry in self.graph.outputs(number)]
            given = [key for key in gradients if key is not None]
            targets = [self._root(entry) for entry in node.inputs]
            targets = [
                entry for entry in targets if entry in wanted and not self.graph.is_variable(entry)
            ]
            if node.op in _SUMS and given:
                for entry in targets:
                    self._shares.setdefault(entry, []).append(given[0])
                continue
            makes = []
            for entry in targets:
                shares = self._shares.setdefault(entry, [])
                key = ("gradient", entry, 1 + number)
                shares.append(key)
                makes.append(key)
            reads = [*given, *map(_forward_key, self._read_by_gradient(number))]
            self._add(f"{node.name}_backward", reads, makes, in_place=node.op in _IN_PLACE)

    def _summed(self, entry: Entry) -> Key | None:
        """The gradient of an output, after its shares have been added up."""
        shares = self._shares.get(entry, [])
        if len(shares) < 2:
            return shares[0] if shares else None
        total = ("gradient", entry, 0)
        self._add(f"{self.graph.nodes[entry[0]].name}_sum_grad", shares, [total], in_place=True)
        return total

    def _read_by_gradient(self, number: int) -> list[Entry]:
        node = self.graph.nodes[number]
        inputs = [self._root(entry) for entry in node.inputs]
        if node.op in _READS_NOTHING:
            return []
        if node.op in _READS_OUTPUTS:
            return self.graph.outputs(number)
        if node.op in _READS_INPUTS:
            return inputs
        if node.op == "BatchNorm":
            return [inputs[0], *self.graph.outputs(number)[1:]]
        return [*inputs, *self.graph.outputs(number)]

    def _wanted(self) -> set[Entry]:
        """What needs a gradient: trained parameters, and all that depends on them."""
        wanted: set[Entry] = set()
        for number, node in enumerate(self.graph.nodes):
            if node.op == _VARIABLE:
                if node.name in self.trained:
                    wanted.add((number, 0))
            elif node.op != "BlockGrad" and any(self._root(e) in wanted for e in node.inputs):
                wanted.update(map(self._root, self.graph.outputs(number)))
        return wanted

    def _add(self, name: str, reads: list[Key], makes: list[Key], *, in_place: bool) -> None:
        inner = [key for key in reads if not self.graph.is_variable(key[1])]
        self.steps.append(_Step(name, tuple(inner), tuple(makes), in_place))


def _forward_key(entry: Entry) -> Key:
    return ("output", entry, 0)


@dataclass(frozen=True)
class _Moment:
    """A step of the timeline: what appears, in place of what, and what nobody reads any more."""

    name: str
    born: tuple[tuple[Key, Key | None], ...]
    dying: tuple[Key, ...]


def _moments(timeline: _Timeline) -> Iterator[_Moment]:
    last: dict[Key, int] = {}
    for number, step in enumerate(timeline.steps):
        last.update(dict.fromkeys((*step.reads, *step.makes), number))
    last.update(dict.fromkeys(timeline.heads(), len(timeline.steps)))
    live: set[Key] = set()
    for number, step in enumerate(timeline.steps):
        dying = [key for key in dict.fromkeys(step.reads) if last[key] == number and key in live]
        born: list[tuple[Key, Key | None]] = []
        for key in step.makes:
            size = timeline.size(key)
            fitting = (old for old in dying if step.in_place and timeline.size(old) == size)
            replaced = next(fitting, None)
            if replaced is not None:
                dying.remove(replaced)
            born.append((key, replaced))
        dying += [key for key in step.makes if last[key] == number]
        live.update(step.makes)
        live.difference_update(dying, (old for _, old in born if old is not None))
        yield _Moment(step.name, tuple(born), tuple(dying))


def _most_at_once(
    timeline: _Timeline, moments: Sequence[_Moment]
) -> tuple[int, str, tuple[tuple[str, int], ...]]:
    """Most bytes that live at one step, the step, and the layers that hold most of them."""
    live: dict[Key, int] = {}
    total, most, layer, holders = 0, 0, "", dict[Key, int]()
    for moment in moments:
        for key, replaced in moment.born:
            if replaced is not None:
                total -= live.pop(replaced, 0)
            live[key] = timeline.size(key)
            total += live[key]
        if total > most:
            most, layer, holders = total, moment.name, dict(live)
        for key in moment.dying:
            total -= live.pop(key, 0)
    by_layer: Counter[str] = Counter()
    for (_, entry, _), size in holders.items():
        by_layer[timeline.graph.nodes[entry[0]].name] += size
    return most, layer, tuple(by_layer.most_common(_LAYERS_SHOWN))


def _planned(timeline: _Timeline, moments: Sequence[_Moment], reach: int) -> int:
    """Bytes of all places together, when arrays go into free ones as MXNet's planner puts them.

    The smallest place that is large enough comes first, then the largest of those that have to
    grow; a new one is made where no free one is within `reach`.
    """
    places: list[int] = []  # bytes
    free: list[tuple[int, int]] = []  # (bytes, number of the place), sorted
    place_of: dict[Key, int] = {}
    for moment in moments:
        for key, replaced in sorted(moment.born, key=lambda pair: -timeline.size(pair[0])):
            size = timeline.size(key)
            if replaced is not None:
                place_of[key] = place_of.pop(replaced)
                continue
            place = _take(free, size, reach)
            if place is None:
                place = len(places)
                places.append(size)
            places[place] = max(places[place], size)
            place_of[key] = place
        for key in moment.dying:
            place = place_of.pop(key)
            insort(free, (places[place], place))
    return sum(places)


def _take(free: list[tuple[int, int]], size: int, reach: int) -> int | None:
    """Takes a place from the free ones; None where none fits."""
    larger = bisect_left(free, (size, -1))
    if larger < bisect_right(free, (size * reach, math.inf)):
        return free.pop(larger)[1]
    if larger and free[larger - 1][0] >= size // reach:
        return free.pop(larger - 1)[1]
    return None
