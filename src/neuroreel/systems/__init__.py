"""Where stages meet: one file per published system, and the baselines."""
