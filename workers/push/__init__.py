"""The push streamer: gives committed events their order and streams them to gateways (docs/push.md)."""
