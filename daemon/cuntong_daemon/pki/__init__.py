"""Who a node is: certificates, the authorities' CAs, and TLS between nodes (SPEC 5)."""
