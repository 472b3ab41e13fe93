"""Has anything become slower, bigger or worse at scaling? Baselines, tests and verdicts. No torch."""
