"""Who does what, where and when: the schedule (pure), the Ray cluster and the groups of workers on it."""
