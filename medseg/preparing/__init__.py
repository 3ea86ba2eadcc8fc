"""Cases on the model's grid, made once and kept in the cache folder: training reads the chunks of its patches."""
