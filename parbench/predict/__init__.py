"""What other machines would do: clusters, layouts, a cost model, its calibration and how sure it is. Without torch."""
