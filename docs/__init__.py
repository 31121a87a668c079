"""What README and its pages are made of: cards of the methods, commands of the five systems, and `make readme`."""
