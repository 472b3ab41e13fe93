"""What is written or sent: versioned, and tolerant of fields that another version adds."""
