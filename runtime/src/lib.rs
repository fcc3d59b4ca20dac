//! What both processes share: API client, admin endpoints, telemetry, shutdown.
