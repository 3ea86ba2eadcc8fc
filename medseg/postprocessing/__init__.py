"""What is done to a mask after the network: islands, holes, instances, a dense CRF; for masks of any size."""
