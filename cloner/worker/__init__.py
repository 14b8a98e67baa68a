"""The worker: one Celery process that loads its model once and generates chunks."""
