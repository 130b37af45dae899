"""Training: recipes, one step, one run, workers, and self-critical training."""
