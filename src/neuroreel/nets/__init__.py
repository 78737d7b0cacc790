"""Network parts that stages share."""
