"""Everything that can be known of a run before its first process starts and before its folder is touched.

The list is in checks.py. `rlstack train`, `--check`, `rlstack doctor CONFIG`, `launch` and Session go
through the same one.
"""
