"""The backbones, one file each. A new one is a file like them and one line.

A backbone derives from `sniper.models.parts.Backbone`. Its fields say which strides it can be built
with, which values of the options that only backbones read, how wide its heads are by default, how
the losses of the RoI head are normalised, and which weights of others fit; `maps` names the feature
maps that it offers with their strides, `features` builds them.

`register_backbone("tiny", Tiny(strides=(8,)))`, also from outside of the package, then makes the
networks `tiny_<heads>` for all sets of heads. Names of its layers must be those of its weights.

MXNet comes from `sniper.models.lazy`: importing a backbone must not import it.
"""
