"""Invoices in Flask, with Flask-SQLAlchemy and Flask-Migrate; `oban start` runs their jobs."""
