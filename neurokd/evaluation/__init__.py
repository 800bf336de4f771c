"""How good a segmentation or a tree is."""
