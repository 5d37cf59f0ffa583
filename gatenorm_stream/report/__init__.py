"""What people read: tables, the model card, progress."""
