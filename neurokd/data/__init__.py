"""Volumes, trees, simulated neurons and the patches a network is trained on."""
