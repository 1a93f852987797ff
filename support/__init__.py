"""Helpers for every layer: errors, progress, tables, locks, atomic files, processors. Imports no other package here."""
