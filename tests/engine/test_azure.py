"""Keys and accounts of Azure, as far as addresses tell; requests are in test_gcs_azure.py."""

from __future__ import annotations

import pytest

from headclip.engine.azure import account, open_azure, path_of
from headclip.errors import InputError


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in ("KEY", "SAS_TOKEN", "ACCOUNT"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)


@pytest.mark.parametrize(
    "url", ["abfs://plant.blob.core.windows.net/box/a", "abfs://box@plant.dfs.core.windows.net/a", "abfs://box/a"]
)
def test_without_a_key_azures_own_ways_count(url):
    assert account(url) is None


@pytest.mark.parametrize("url", ["abfs://plant.blob.core.windows.net/box/a", "abfs://box@plant.dfs.core.windows.net/a"])
def test_keys_of_the_environment_belong_to_the_account_in_the_host(url, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_KEY", "c2VjcmV0")
    assert account(url) == {"account_name": "plant", "account_key": "c2VjcmV0"}
    pytest.importorskip("pyarrow.fs")
    assert open_azure(url)[1] == "box/a"


def test_a_container_alone_takes_the_account_of_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "?sv=1&sig=x")
    with pytest.raises(InputError, match="AZURE_STORAGE_ACCOUNT"):
        account("abfs://box/a")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "plant")
    assert account("abfs://box/a") == {"account_name": "plant", "sas_token": "sv=1&sig=x"}
    pytest.importorskip("pyarrow.fs")
    assert open_azure("abfs://box/a")[1] == "box/a"


@pytest.mark.parametrize(
    "url",
    [
        "abfs://box/a%20b/",
        "abfs://plant:key@127.0.0.1:10000/box/a%20b",
        "abfs://box@plant.dfs.core.windows.net/a b",
        "abfss://:key@plant.blob.core.windows.net/box/a b",
    ],
)
def test_the_container_is_found_wherever_it_stands(url):
    assert path_of(url) == "box/a b"


@pytest.mark.parametrize(("query", "scheme"), [("?enable_tls=false", "http"), ("", "https")])
def test_a_server_of_ones_own(query, scheme):
    found = account(f"abfs://me:a%2Bb%3D@127.0.0.1:10000/box{query}")
    assert found == {
        "account_name": "me",
        "account_key": "a+b=",
        "blob_storage_authority": "127.0.0.1:10000",
        "blob_storage_scheme": scheme,
        "dfs_storage_authority": "127.0.0.1:10000",
        "dfs_storage_scheme": scheme,
    }
