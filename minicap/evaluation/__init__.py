"""Evaluation: metrics, baselines, the truth of captions of scenes, and reports."""
