"""Every SQL statement about jobs, written once, as sync functions over a `Session`.

None of them commits, sleeps, or knows whether an event loop is running: `transaction` does.
"""
