"""Ways of spreading a workload over devices, one file each. Importing them needs no torch."""
