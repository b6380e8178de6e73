"""What a search costs and how far its numbers hold, measured by replaying recorded outcomes."""
