"""The layers, the optimizers and the training loop; nothing here knows a model or a corpus."""
