"""Samplers in the form of their papers, and the one scheduler that runs them inside any diffusers pipeline."""
