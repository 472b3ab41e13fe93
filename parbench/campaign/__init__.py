"""Rounds of trials: planning what to launch, recording it, resuming it, and comparing arms."""
