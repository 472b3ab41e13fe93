"""Tables in the formats that people and programs read."""
