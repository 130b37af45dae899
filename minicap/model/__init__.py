"""The captioning model: architecture, parameters, masks and files."""
