"""The program of the batch that runs: for every law of an iteration but [LDHZ]'s own with full chunks."""
