"""`bench --peers`: other libraries at the same work, each in a process of their own environment."""
