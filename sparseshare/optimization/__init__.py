"""What every solver shares: penalties, constraints, the duality gap."""
