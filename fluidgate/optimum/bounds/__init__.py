"""An upper bound of what any policy earns on a finite number of GPUs."""
