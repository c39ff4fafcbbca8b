"""Taking records in: the Ingest and Control services, and who has got what of which writer.

`marks` is pure; `agent` and `hub` are the servicers of the two roles; `access` lets nobody in without a credential.
"""
