"""Child processes for workers with `executor="process"`: the pool, the messages, the child's program."""
