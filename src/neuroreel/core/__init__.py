"""What every stage shares: arrays with their units, checks and their one error sentence, config, store, seeds."""
