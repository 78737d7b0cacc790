"""Scores and video to one self-contained page."""
