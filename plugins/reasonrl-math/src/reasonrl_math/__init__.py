"""Mathematics for reasonrl: problems from files and the hub, multiplication, and their rewards."""
