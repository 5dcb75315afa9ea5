"""Independent truth for the simulator: the network as an explicit Markov chain, and closed forms."""
