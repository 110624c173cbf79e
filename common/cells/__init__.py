"""One-step recurrent cells, a file each; ``common.time_layers.TimeCell`` runs them over T steps."""
