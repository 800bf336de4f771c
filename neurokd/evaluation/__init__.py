"""How good a segmentation or a tree is, beside a threshold."""
