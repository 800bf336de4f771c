"""Models: the 2D teacher, the 3D vision transformer, inflation between them, the segmenter."""
