"""What a choice of removed attention costs, from one streamed pass over the weights."""
