"""The clusters that come with parbench: a YAML file each."""
