"""The objects of the simulated world: forty categories in eight groups, each drawn from parts."""
