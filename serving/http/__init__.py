"""The HTTP interface: the wire protocol, operations, their OpenAPI document, and errors."""
