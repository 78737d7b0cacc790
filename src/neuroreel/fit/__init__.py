"""How anything is fitted: ridge solvers, folds, training loop, checkpoints."""
