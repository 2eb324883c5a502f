"""Fetching jobs, running them, and storing how they ended."""
