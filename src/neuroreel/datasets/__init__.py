"""Files to recordings: cards of public data, BIDS derivatives, arrays, the store."""
