"""Covariances, tests and comparisons of fitted models."""
