"""The HTTP interface: operations, their OpenAPI document, and error statuses."""
