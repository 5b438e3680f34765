"""Reading yaml that anybody may have written: plain data, in bounded time and memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LARGEST_BYTES = 256 << 10
# Of a few hundred bytes, aliases of aliases make billions of values when they are written out.
MOST_VALUES = 100_000


class PlainLoader(yaml.SafeLoader):
    """The safe loader, which builds plain data only, with a limit to what aliases repeat."""

    def get_single_node(self) -> yaml.Node | None:
        """The document; ConstructorError if it stands for too many values."""
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {}, set())
        return node


def read_yaml_file(path: Path, loader: type[PlainLoader] = PlainLoader) -> Any:
    """The one document of a UTF-8 file; see `load_yaml`.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(LARGEST_BYTES + 1)
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"the file has more than {LARGEST_BYTES >> 10} KiB")
    return load_yaml(content.decode("utf-8-sig"), loader, str(path))


def load_yaml(text: str, loader: type[PlainLoader] = PlainLoader, name: str = "") -> Any:
    """The one document of a yaml text as plain data; None for an empty one.

    Args:
        text: the text.
        loader: builds the data.
        name: of the text, for messages.

    Raises:
        ValueError, yaml.YAMLError, RecursionError: it is no yaml, too deep, or stands for too many
            values.
    """
    reader = loader(text)
    try:
        reader.name = name or "text"
        return reader.get_single_data()
    finally:
        reader.dispose()


def _count_values(node: yaml.Node, counted: dict[int, int], open_nodes: set[int]) -> int:
    """Values that a node stands for, each alias as often as it is written."""
    identity = id(node)
    if identity in counted:
        return counted[identity]
    if identity in open_nodes:
        raise yaml.constructor.ConstructorError(
            None, None, "a value contains itself through an alias", node.start_mark
        )
    open_nodes.add(identity)
    total = 1
    if isinstance(node, yaml.SequenceNode):
        total += sum(_count_values(child, counted, open_nodes) for child in node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            total += _count_values(key, counted, open_nodes)
            total += _count_values(value, counted, open_nodes)
    open_nodes.discard(identity)
    if total > MOST_VALUES:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"with all aliases written out this is more than {MOST_VALUES} values",
            node.start_mark,
        )
    counted[identity] = total
    return total
