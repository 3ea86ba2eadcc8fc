"""Models under names: registered in MLflow as packages without pickles, and fetched by their addresses."""
