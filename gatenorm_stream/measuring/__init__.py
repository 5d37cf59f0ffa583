"""What a choice of removed attention costs, by one streamed pass over the weights."""
