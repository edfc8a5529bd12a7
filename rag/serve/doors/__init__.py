"""What stands in front of the routes: who may come (hosts, origins), what a key opens, and how often it may be used."""
