"""The Inception nets."""
