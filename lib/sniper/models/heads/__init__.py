"""The heads, one file each. A new one is a file like them and a line in a set of heads.

A head derives from `sniper.models.parts.Head` and declares

* `layers`: its layers with weights, and how these start;
* `labels`: the arrays that it needs of every chip and how the loader makes them
  (`sniper.targets.contract.Labels`); what several heads read, one of them declares;
* `losses`: the outputs of the training graph, made of feature maps (`graph.map()`), inputs
  (`graph.input("label")`) and what earlier heads have left (`graph.get("rois")`, named in `needs`);
* `results` and `decode`: the outputs of the test graph, and how they become boxes and scores;
* `metrics`: sums over the outputs and labels of a batch.

`register_heads("centre", (RpnHead(), Proposals(), RoiHead(), CentreHead()))`, also from outside of
the package, then makes the networks `<backbone>_centre`. Layers, labels and outputs are known by
their names: these must be new ones. A head that can stand in a network several times, such as an
RPN for each of several maps, takes a suffix.

MXNet comes from `sniper.models.lazy`: importing a head must not import it.
"""
