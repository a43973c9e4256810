"""What this machine lacks for a run, found before one starts.

Probes look and gather facts, checks are pure and judge them. Nothing but the standard library is imported
here without a guard, for a broken installation is what this is asked about. What needs more, reading a
configuration or starting Ray, goes on in processes of its own.
"""

LIMIT_S = 180.0  # of an import and of starting Ray; vLLM takes a minute or two to import from a slow disk
