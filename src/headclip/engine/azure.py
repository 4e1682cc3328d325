"""Azure's blob store by URL, with an account key or a shared access signature, which pyarrow's own addresses leave out.

Without either, pyarrow takes what Azure's own tools take: environment, managed identity, `az login`.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from headclip.errors import InputError

CLOUD = ".core.windows.net"


def open_azure(url: str) -> tuple[Any, str]:
    """The file system and the path in it, which begins with the container.

    Keys: AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or the password of `abfs://ACCOUNT:KEY@HOST/CONTAINER`.

    Raises:
        InputError: there is a key, and nothing says of which account.
    """
    from pyarrow import fs

    found = account(url)
    if found is None:
        system, path = fs.FileSystem.from_uri(url)
        return system, path.rstrip("/")
    return fs.AzureFileSystem(**found), path_of(url)


def path_of(url: str) -> str:
    """Container and path, wherever in a URL the container stands.

    >>> path_of("abfs://box@plant.dfs.core.windows.net/a"), path_of("abfs://plant.blob.core.windows.net/box/a/")
    ('box/a', 'box/a')
    """
    parts = urlsplit(url)
    if (parts.hostname or "").endswith(CLOUD):
        container = parts.username or ""
    else:  # a server of one's own is followed by the container, and without one the container stands first
        container = "" if parts.port else parts.netloc.rpartition("@")[2]
    return "/".join(filter(None, (container, unquote(parts.path).strip("/"))))


def account(url: str) -> dict[str, str] | None:
    """What `AzureFileSystem` asks for, or None where there is no key.

    >>> account("abfs://me:a%2Fb@127.0.0.1:10000/box?enable_tls=false")["account_key"]
    'a/b'
    """
    parts = urlsplit(url)
    host, cloud = parts.hostname or "", (parts.hostname or "").endswith(CLOUD)
    key = unquote(parts.password or "") or os.environ.get("AZURE_STORAGE_KEY", "")
    token = os.environ.get("AZURE_STORAGE_SAS_TOKEN", "").removeprefix("?")
    if not key and not token:
        return None
    name = host.split(".")[0] if cloud else parts.username or os.environ.get("AZURE_STORAGE_ACCOUNT", "")
    if not name:
        raise InputError("a key for Azure is given, but no account; set AZURE_STORAGE_ACCOUNT, or name it in the URL")
    found = {"account_name": name} | ({"account_key": key} if key else {"sas_token": token})
    if parts.port:  # a server of one's own, or a stand-in
        scheme = "http" if parse_qs(parts.query).get("enable_tls") == ["false"] else "https"
        for service in ("blob", "dfs"):
            found |= {f"{service}_storage_authority": f"{host}:{parts.port}", f"{service}_storage_scheme": scheme}
    return found
