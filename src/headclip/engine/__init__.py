"""Judging on many machines with an engine that exists: Ray Data (extra `ray`).

storage     URLs to files: local disk, S3, GCS, Azure, and what fsspec knows
chunks      what travels: files to judge, and what came of them
workers     the part that runs beside the model, on any node; knows nothing of Ray
crew        the part that knows Ray: cluster, actor pool, retries
predicting  `headclip predict --engine ray`
remote_run  a run that is written to object storage
evaluating  `headclip evaluate --engine ray`
"""
