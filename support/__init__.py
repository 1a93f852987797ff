"""What every layer may use: errors, progress, tables, locks, atomic files, processors. Imports nothing else."""
