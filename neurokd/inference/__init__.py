"""From a volume to probabilities, and from probabilities to a tree."""
