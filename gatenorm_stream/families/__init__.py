"""The known architectures: a row each (`table`), and a checkpoint read through its row (`model`)."""
