"""Training over several processes: who is who, and how they are started on one machine."""
