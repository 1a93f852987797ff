"""Weights of other frameworks, matched layer by layer with our nets."""
