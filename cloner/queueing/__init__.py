"""Celery: the app, its Redis transport, heartbeats, retries and log filters."""
