"""How `sniper suggest-scales` finds a pyramid, anchors and limits for the sizes of the boxes."""
