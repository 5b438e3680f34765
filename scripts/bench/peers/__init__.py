"""How each peer is called; the cases import from here inside their sides only."""
