"""Language models: which layers, in which order, which weights are tied."""
