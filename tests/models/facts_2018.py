"""Facts about the networks of 2018, and our networks as facts of the same form.

Run as a script it writes the golden file: `facts_2018.py FACTS_FOLDER OUTPUT.json.gz`.

Rules of the extraction, for every `params/params_<tag>.json` of a ResNet or MobileNetV2 (tags of
ResNeXt and of other projects are left out), with `params_<tag>_fp32.json` and
`graphs/graph_<tag>.json` of the same tag:

* `arguments`, `aux`, `outputs`: names and shapes, in order. Arguments that are float16 are named in
  `half` (fp16 on) and `half_fp32` (fp16 off); outputs and aux must all be float32. Apart from that
  the two files of a tag must be equal, or the extraction fails.
* `inputs`: arguments that are data or labels. `images`, `side`, `classes`, `anchors`, `stride`:
  the setting in which all shapes hold. `parameters`: how many numbers the network learns.
* `lr_mult`, `fixed_patterns`, `fixed`: learning-rate multipliers; names that are not trained.
* `init`, `pretrained`, `pretrained_aux`: starting values by tensor, tensors expected from the
  pretrained file (training graphs only; where the code of 2018 failed, `init_error` says how).
* `nodes`: operator, name, attributes and inputs of every node, for fp16 and a loss scale of 100.
  Nodes that MXNet named by itself (`_plus12`) have the name "" and are called by what they
  compute: operator, attributes and inputs, as a hash. Two graphs are then the same network when
  their sets of nodes are equal, in whatever order they were built.

Differences that are allowed are the tables below, each with its reason; they are applied to the
facts of 2018 (`as_today`) or to our graph (`our_nodes`) before the two are compared.
"""

import ast
import gzip
import hashlib
import json
import re
import sys
from pathlib import Path

NETWORKS = ("resnet_mx_101_e2e", "resnet_mx_101_e2e_mask", "resnet_mx_50_e2e", "mobilenetv2_e2e")
TAG = re.compile(rf"({'|'.join(NETWORKS)})_(train|test)(_autofocus)?(_rpn)?")

# Outputs of extension operators cannot be named; ours go through an identity, which adds a suffix.
RENAMED_OUTPUTS = {"rois_score": "rois_score_output"}
# The same pooling, faster on the CPU. The fork had the other operators under these names already.
RENAMED_OPERATORS = {"_contrib_DeformablePSROIPooling": "DeformablePSROIPooling"}
# Operators of ours that compute what those of 2018 do with these attributes, faster on the CPU.
SYNONYMS = {"ReLU6": ("clip", {"a_min": "0", "a_max": "6"})}
# Operators whose nodes MXNet named by itself in 2018, in all or some places.
NAMELESS = {
    "Cast",
    "Pooling",
    "BlockGrad",
    "MaskRcnnTarget",
    "_plus_scalar",
    "elemwise_add",
    "elemwise_mul",
    "elemwise_sub",
    "pick",
}
# MXNet fills these in when they are absent. trans_std has no effect without offsets.
DEFAULTS = {
    "Convolution": {"pad": "(0, 0)", "stride": "(1, 1)", "dilate": "(1, 1)", "num_group": "1"},
    "Deconvolution": {"no_bias": "True"},
    "SoftmaxOutput": {"normalization": "null"},
    "Concat": {"dim": "1"},
    "DeformablePSROIPooling": {"trans_std": "0.0"},
    "MaskRcnnTarget": {"ignore_label": "-1.0"},
}
# What the operators of 2018 took from their own defaults when a graph did not say it ...
PROPOSAL_DEFAULTS = {
    "scales": "(2, 4, 7, 10, 13, 16, 24)",
    "ratios": "(0.5, 1, 2)",
    "feature_stride": "16",
    "rpn_post_nms_top_n": "300",
}
# ... and what they used whatever a graph said. Ours honour their attributes, so these are given.
_TARGETS = {"legacy_gt_centre": "True", "legacy_areas": "True", "legacy_min_size": "True"}
_FIXED = {"threshold": "0.7", "rpn_min_size": "3"}
PROPOSAL_FIXED = {
    "MultiProposal": {**_FIXED, "rpn_pre_nms_top_n": "12000"},
    "MultiProposalTarget": {**_FIXED, **_TARGETS, "rpn_pre_nms_top_n": "-1"},
    "MultiProposalTargetMask": {
        **_FIXED,
        **_TARGETS,
        "rpn_pre_nms_top_n": "6000",
        "max_masks": "50",
    },
}
# Sizes of buffers in 2018; ours follow from the shapes of the inputs. The number of classes was
# not used.
BUFFER_SIZES = {
    "MultiProposal": ("batch_size",),
    "MultiProposalTarget": ("batch_size",),
    "MultiProposalTargetMask": ("batch_size",),
    "MaskRcnnTarget": (
        "batch_size",
        "num_proposals",
        "max_polygon_len",
        "max_num_gts",
        "num_classes",
    ),
}
ROIS = 300
LOSS_SCALE = 100.0


def read(spec: Path, tag: str) -> dict:
    """Facts of one tag from the JSON files of `spec`."""
    params = _json(spec / "params" / f"params_{tag}.json")
    plain = _json(spec / "params" / f"params_{tag}_fp32.json")
    graph = _json(spec / "graphs" / f"graph_{tag}.json")
    assert _without_types(params) == _without_types(plain), tag
    assert all(entry["dtype"] == "float32" for entry in params["outputs"] + params["aux"])
    facts = {
        name: [[entry["name"], entry["shape"]] for entry in params[name]]
        for name in ("arguments", "aux", "outputs")
    }
    facts["inputs"] = [entry["name"] for entry in params["arguments"] if entry["is_input"]]
    facts["half"], facts["half_fp32"] = _half(params), _half(plain)
    for ours, theirs in (
        ("images", "batch"),
        ("side", "image_size"),
        ("classes", "num_classes"),
        ("anchors", "num_anchors"),
        ("stride", "feat_stride"),
        ("parameters", "n_params"),
        ("lr_mult", "lr_mult"),
        ("fixed_patterns", "fixed_param_prefixes"),
        ("fixed", "fixed_arguments"),
    ):
        facts[ours] = params[theirs]
    for ours, theirs in (
        ("init", "init"),
        ("pretrained", "expected_from_pretrained"),
        ("pretrained_aux", "expected_from_pretrained_aux"),
        ("init_error", "init_error"),
    ):
        if theirs in params:
            facts[ours] = params[theirs]
    facts["nodes"] = [[n["op"], n["name"], n["attrs"], n["inputs"]] for n in graph["nodes"]]
    return facts


def _json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _without_types(params: dict) -> dict:
    rest = {k: v for k, v in params.items() if k not in ("tag", "fp16", "arguments")}
    names = [(e["name"], e["shape"], e["is_input"]) for e in params["arguments"]]
    return {**rest, "arguments": names}


def _half(params: dict) -> list:
    return [e["name"] for e in params["arguments"] if e["dtype"] == "float16"]


def tags(spec: Path) -> list:
    """Tags of the networks that we have, in the order of the file names."""
    stems = [path.stem.removeprefix("params_") for path in spec.glob("params/params_*.json")]
    return sorted(stem for stem in stems if TAG.fullmatch(stem))


def as_today(nodes: list, *, fp16: bool = True) -> set:
    """Nodes of 2018 in the common form, with the allowed differences applied.

    With fp16 off there are no casts, and no loss scale: the facts hold for fp16 and a scale of 100.
    """
    changed = []
    for op, name, attrs, inputs in nodes if fp16 else _without_fp16(nodes):
        op = RENAMED_OPERATORS.get(op, op)
        attrs = {k: v for k, v in attrs.items() if k not in BUFFER_SIZES.get(op, ())}
        if op in PROPOSAL_FIXED:
            attrs = {**PROPOSAL_DEFAULTS, **attrs, **PROPOSAL_FIXED[op]}
        if op == "Reshape":
            attrs = _any_batch(attrs)
        changed.append((op, name, attrs, inputs))
    return common_form(changed)


def _without_fp16(nodes: list) -> list:
    casts, kept = {}, []
    for op, name, attrs, inputs in nodes:
        inputs = [casts.get(source, source) for source in inputs]
        if op == "Cast":
            casts[name] = inputs[0]
            continue
        if "grad_scale" in attrs:
            attrs = {**attrs, "grad_scale": str(float(attrs["grad_scale"]) / LOSS_SCALE)}
        kept.append([op, name, attrs, inputs])
    return kept


def _any_batch(attrs: dict) -> dict:
    """2018 built the number of images into (images, -1, columns); ours fits any batch."""
    shape = ast.literal_eval(attrs["shape"])
    if len(shape) == 3 and shape[0] > 0:
        return {"shape": str((-1, ROIS, shape[2]))}
    return attrs


def our_nodes(symbol) -> set:
    """Nodes of our network in the common form.

    Left out are identities (they name the outputs of extension operators and add gradients, which
    these operators cannot) and the gradient stops in front of extension operators, whose gradients
    are zero anyway. The name of a node behind an identity is the operator's name of 2018.
    """
    graph = json.loads(symbol.tojson())["nodes"]
    aliases, nodes = {}, []
    readers = [[] for _ in graph]
    for node in graph:
        for index, _, _ in node["inputs"]:
            readers[index].append(node["op"])
    for index, node in enumerate(graph):
        inputs = [_reference(graph, aliases, i, slot) for i, slot, _ in node["inputs"]]
        extension = bool(readers[index]) and set(readers[index]) <= set(BUFFER_SIZES) | {
            "DeformablePSROIPooling"
        }
        if node["op"] in ("identity", "_copy") or (node["op"] == "BlockGrad" and extension):
            aliases[node["name"]] = inputs[0]
        elif node["op"] != "null":
            name = "rois" if node["op"] == "MultiProposal" else node["name"]
            aliases[node["name"]] = name
            op, attrs = SYNONYMS.get(node["op"], (node["op"], node.get("attrs", {})))
            nodes.append((op, name, attrs, inputs))
    return common_form(nodes)


def _reference(graph, aliases, index, slot):
    name = graph[index]["name"]
    return aliases.get(name, name) + (f":{slot}" if slot else "")


def common_form(nodes: list) -> set:
    """Nodes as hashable tuples (operator, name, attributes, inputs) that need no order."""
    called, found = {}, set()
    for op, name, attrs, inputs in nodes:
        values = {**DEFAULTS.get(op, {}), **attrs}
        values = tuple(sorted((k, _value(v)) for k, v in values.items()))
        sources = tuple(_called(called, source) for source in inputs)
        own = "" if op in NAMELESS else name
        if not own:
            digest = hashlib.sha256(repr((op, values, sources)).encode()).hexdigest()
            called[name] = f"{op}#{digest[:12]}"
        found.add((op, own, values, sources))
    return found


def _called(called: dict, source: str) -> str:
    name, _, slot = source.partition(":")
    return called.get(name, name) + (f":{slot}" if slot else "")


def _value(text: str):
    """'6', '6.0' and 6 are one value, and so are '[1, 2]' and '(1, 2)'."""
    try:
        value = ast.literal_eval(str(text))
    except (ValueError, SyntaxError):
        return str(text)
    if isinstance(value, (list, tuple)):
        return tuple(float(entry) for entry in value)
    # Quotients differ in the last digits by the order of the factors.
    return value if isinstance(value, bool) else float(f"{value:.12g}")


def write_golden(spec: Path, output: Path) -> None:
    """Writes the facts of all tags; entries that tags share are written once."""
    table, packed = {}, {}
    for tag in tags(spec):
        packed[tag] = {
            key: [table.setdefault(json.dumps(entry), len(table)) for entry in value]
            if isinstance(value, list)
            else value
            for key, value in read(spec, tag).items()
        }
    golden = {"entries": [json.loads(entry) for entry in table], "tags": packed}
    text = json.dumps(golden, separators=(",", ":"))
    # Without time and name in the header the same facts are the same bytes.
    with open(output, "wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0) as compressed:
            compressed.write(text.encode("utf-8"))


def read_golden(path: Path) -> dict:
    """Facts by tag, as `read` gives them."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        golden = json.load(file)
    return {
        tag: {
            key: [golden["entries"][index] for index in value] if isinstance(value, list) else value
            for key, value in facts.items()
        }
        for tag, facts in golden["tags"].items()
    }


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]), Path(sys.argv[2]))
