"""The local web application and the REST server; needs the extra `serve`."""
