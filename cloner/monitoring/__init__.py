"""Views of a fleet: a snapshot, metrics for Prometheus, pages for Flower."""
