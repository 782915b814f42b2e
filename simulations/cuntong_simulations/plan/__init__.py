"""The channel planner: the cheapest mix of VPN, satellite and disks that meets the deadlines."""
