"""Prediction and truth to scores, with their chance and their uncertainty."""
