"""Helpers that know nothing of captions: errors, files, downloads and command lines."""
