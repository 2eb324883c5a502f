"""`oban top`: a live view of an instance, with keys to act on its jobs and queues."""
