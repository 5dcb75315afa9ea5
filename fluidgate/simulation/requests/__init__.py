"""Simulations that follow each request: policies on the iteration model, on drawn requests or on traces."""
