"""The API's description, OpenAPI 3.1, as /openapi.json; imported when it is first asked for."""
