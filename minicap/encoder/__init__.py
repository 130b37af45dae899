"""The image encoder: InceptionV3, from weights to an ONNX file, and from photos to features."""
