"""Every network of 2018, in every variant, against the facts of 2018 (`facts_2018.py`).

The golden file holds the facts; the last test compares them with the JSON files themselves where
these are present. `differences` names everything in which a network of ours is not that of 2018.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from sniper.models.assembly import (
    DetectorSpec,
    ProposalSettings,
    build_detector,
    inference_input_shapes,
    train_input_shapes,
)
from sniper.models.initialisers import initial_value, is_head, is_parameter
from sniper.models.weights import fixed_names
from tests.models import facts_2018

HERE = Path(__file__).resolve()
GOLDEN = facts_2018.read_golden(HERE.parents[1] / "golden" / "networks_2018.json.gz")
SHARED = Path(os.environ.get("SNIPER_SHARED", HERE.parents[3] / "shared")) / "spec"
# 2018 cast MobileNetV2 and the mask head to fp16 even with fp16 off; our fp32 graphs hold no casts.
HALF_WITH_FP16_OFF: list = []
SCALES = {32: (1, 2, 4, 8, 12), 16: (2, 4, 7, 10, 13, 16, 24)}


class Network:
    """Our network of a tag, in the setting that the facts hold for."""

    def __init__(self, tag, facts, *, fp16):
        name, kind, focus, rpn_only = facts_2018.TAG.fullmatch(tag).groups()
        self.train = kind == "train"
        masks = name.endswith("_mask")
        candidates = (6000 if masks else -1) if self.train else 12000
        spec = DetectorSpec(
            name,
            facts["classes"],
            SCALES[facts["stride"]],
            (0.5, 1, 2),
            facts["stride"],
            facts["images"],
            fp16=fp16,
            loss_scale=facts_2018.LOSS_SCALE if fp16 else 1.0,
            auto_focus=bool(focus),
            with_masks=masks,
            proposal=ProposalSettings(pre_nms_top_n=candidates),
        )
        rpn_only, side = bool(rpn_only), facts["side"]
        self.symbol = build_detector(spec, train=self.train, rpn_only=rpn_only)
        if self.train:
            self.inputs = train_input_shapes(spec, side, rpn_only=rpn_only)
        else:
            size = (facts["images"], side, side)
            self.inputs = inference_input_shapes(spec, *size, rpn_only=rpn_only)

    def shapes(self):
        names = (
            self.symbol.list_arguments(),
            [facts_2018.RENAMED_OUTPUTS.get(n, n) for n in self.symbol.list_outputs()],
            self.symbol.list_auxiliary_states(),
        )
        shapes = self.symbol.infer_shape(**self.inputs)
        return [
            [[name, list(shape)] for name, shape in zip(*group)] for group in zip(names, shapes)
        ]

    def types(self):
        """Names of arguments that are fp16; types of outputs and auxiliary states."""
        types, outputs, aux = self.symbol.infer_type(**dict.fromkeys(self.inputs, "float32"))
        half = [n for n, t in zip(self.symbol.list_arguments(), types) if t is np.float16]
        return half, {t for t in (*outputs, *aux)}

    def lr_mult(self):
        attributes = self.symbol.attr_dict()
        return {
            name: attributes[name]["__lr_mult__"]
            for name in self.symbol.list_arguments()
            if "__lr_mult__" in attributes.get(name, {})
        }


def differences(tag, facts):
    """What our network has differently, by aspect; empty when it is that of 2018."""
    network = Network(tag, facts, fp16=True)
    found = {}

    def compare(aspect, ours, theirs):
        if ours != theirs:
            found[aspect] = f"ours {ours}, 2018 {theirs}"[:2000]

    arguments, outputs, aux = network.shapes()
    renamed = facts_2018.RENAMED_OUTPUTS
    compare("arguments", arguments, facts["arguments"])
    compare("aux", aux, facts["aux"])
    compare("outputs", outputs, [[renamed.get(n, n), shape] for n, shape in facts["outputs"]])
    half, others = network.types()
    compare("fp16 arguments", half, facts["half"])
    compare("types of outputs", others, {np.float32})
    compare("lr_mult", network.lr_mult(), facts["lr_mult"])
    names = [name for name, _ in facts["arguments"]]
    compare("inputs", sorted(network.inputs), sorted(facts["inputs"]))
    compare("parameters", [n for n in names if is_parameter(n)], _without(names, facts["inputs"]))
    fixed = fixed_names(network.symbol, facts["fixed_patterns"])
    compare("fixed", fixed, facts["fixed"])
    _compare_start(compare, facts)
    ours, theirs = facts_2018.our_nodes(network.symbol), facts_2018.as_today(facts["nodes"])
    compare("nodes", sorted(map(str, ours - theirs)), sorted(map(str, theirs - ours)))
    plain = Network(tag, facts, fp16=False)
    compare("arguments, fp32", plain.shapes()[0], facts["arguments"])
    compare("fp16 arguments, fp32", plain.types(), (HALF_WITH_FP16_OFF, {np.float32}))
    ours = facts_2018.our_nodes(plain.symbol)
    theirs = facts_2018.as_today(facts["nodes"], fp16=False)
    compare("nodes, fp32", sorted(map(str, ours - theirs)), sorted(map(str, theirs - ours)))
    return found


def _without(names, others):
    return [name for name in names if name not in others]


def _compare_start(compare, facts):
    """Starting values: which tensors a pretrained file must have, and what the others get."""
    parameters = _without([name for name, _ in facts["arguments"]], facts["inputs"])
    if "pretrained" not in facts:
        return
    compare("pretrained", [n for n in parameters if not is_head(n)], facts["pretrained"])
    compare("pretrained aux", [name for name, _ in facts["aux"]], facts["pretrained_aux"])
    heads = {name: _rule(name) for name in parameters if is_head(name)}
    compare("starting values", heads, facts["init"])


def _rule(name):
    # A few numbers are enough: the big layers hold 13 million.
    value = initial_value(name, (1000,), seed=0)
    assert value.dtype == np.float32
    if not value.any():
        return "zeros"
    return f"normal({abs(round(float(value.mean()), 2)):g},{value.std():.2f})"


@pytest.mark.parametrize("tag", GOLDEN)
def test_network_is_that_of_2018(tag):
    assert differences(tag, GOLDEN[tag]) == {}


def test_every_variant_of_2018_is_there():
    assert len(GOLDEN) == 18
    networks = {facts_2018.TAG.fullmatch(tag).group(1) for tag in GOLDEN}
    assert networks == set(facts_2018.NETWORKS)


@pytest.mark.parametrize("tag", [tag for tag in GOLDEN if tag.endswith("_train")])
def test_number_of_parameters(tag):
    facts = GOLDEN[tag]
    network = Network(tag, facts, fp16=False)
    sizes = [np.prod(shape) for name, shape in network.shapes()[0] if name not in network.inputs]
    assert sum(sizes) == facts["parameters"]


def test_starting_values_where_2018_failed():
    """The RPN-only mask network: 2018 looked for the offsets of stage 4, which it does not have."""
    facts = GOLDEN["resnet_mx_101_e2e_mask_train_rpn"]
    assert facts["init_error"].startswith("KeyError")
    names = _without([name for name, _ in facts["arguments"]], facts["inputs"])
    heads = [name for name in names if is_head(name)]
    assert heads == [name for name in names if name.startswith("rpn_")]
    whole = GOLDEN["resnet_mx_101_e2e_mask_train"]
    assert {name: _rule(name) for name in heads}.items() <= whole["init"].items()
    backbone = [name for name in whole["pretrained"] if not name.startswith("stage4")]
    assert _without(names, heads) == backbone


BREAKS = {
    "an attribute": ("grad_scale", "100.0", "99.0"),
    "the wiring": ("inputs", "mask_relu_1", "mask_conv_3x3_1"),
    "a constant of an unnamed node": ("scalar", "80", "79"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_comparison_of_graphs_sees(what):
    nodes = GOLDEN["resnet_mx_101_e2e_mask_train_autofocus"]["nodes"]
    where, old, new = BREAKS[what]
    changed = []
    for op, name, attrs, inputs in nodes:
        if where == "inputs":
            inputs = [new if entry == old else entry for entry in inputs]
        elif attrs.get(where) == old:
            attrs = {**attrs, where: new}
        changed.append([op, name, attrs, inputs])
    assert changed != nodes
    assert facts_2018.as_today(changed) != facts_2018.as_today(nodes)


def test_comparison_of_graphs_sees_exchanged_inputs():
    """Background and foreground of the mask head, whose nodes have no names."""
    nodes = GOLDEN["resnet_mx_101_e2e_mask_train"]["nodes"]
    swapped = [[*node[:3], node[3][::-1]] if node[1] == "pred_cat" else node for node in nodes]
    assert facts_2018.as_today(swapped) != facts_2018.as_today(nodes)


def test_golden_facts_are_those_of_the_json_files():
    if not (SHARED / "params").is_dir():
        pytest.skip("no spec here: set SNIPER_SHARED to the folder with spec/params, spec/graphs")
    assert facts_2018.tags(SHARED) == list(GOLDEN)
    for tag, facts in GOLDEN.items():
        assert facts_2018.read(SHARED, tag) == facts, tag
