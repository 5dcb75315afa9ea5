"""The Markov network: the stochastic model of [LDHZ] section 2, GPU by GPU."""
