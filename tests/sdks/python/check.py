"""azure-storage-blob against the emulator: one line for each operation."""

import os
import sys
import time
import traceback
import uuid
from datetime import datetime, timedelta, timezone

from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobBlock,
    BlobClient,
    BlobLeaseClient,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ContentSettings,
    ResourceTypes,
    StandardBlobTier,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)

CONNECTION = os.environ["SDKS_CONNECTION"]
ENDPOINT = os.environ["SDKS_ENDPOINT"]
service = BlobServiceClient.from_connection_string(CONNECTION)
ACCOUNT, KEY = service.account_name, service.credential.account_key
NAME = f"python-{uuid.uuid4().hex[:8]}"
container = service.get_container_client(NAME)
checks = []


def check(function):
    checks.append(function)
    return function


def refused(status, code, operation, *args, **kwargs):
    try:
        operation(*args, **kwargs)
    except HttpResponseError as error:
        assert error.status_code == status, error
        assert code is None or error.error_code == code, error.error_code
        return
    raise AssertionError(f"{code} expected")


def blob(name, data=b"hello world", **kwargs):
    client = container.get_blob_client(name)
    client.upload_blob(data, overwrite=True, **kwargs)
    return client


@check
def container_create():
    container.create_container(metadata={"kind": "check"})
    refused(409, "ContainerAlreadyExists", container.create_container)


@check
def container_properties_and_metadata():
    assert container.exists()
    assert container.get_container_properties().metadata == {"kind": "check"}
    container.set_container_metadata({"kind": "other"})
    assert container.get_container_properties().metadata == {"kind": "other"}


@check
def container_list():
    listed = list(service.list_containers(name_starts_with=NAME, include_metadata=True))
    assert [one.name for one in listed] == [NAME]
    assert listed[0].metadata == {"kind": "other"}


@check
def blob_upload_and_download():
    client = blob("plain", metadata={"a": "b"})
    assert client.download_blob().readall() == b"hello world"
    assert client.exists() and not container.get_blob_client("none").exists()
    refused(409, "BlobAlreadyExists", client.upload_blob, b"other")
    blob("empty", b"")
    assert container.get_blob_client("empty").download_blob().readall() == b""


@check
def blob_upload_in_blocks_and_download_in_parts():
    small = BlobServiceClient.from_connection_string(
        CONNECTION, max_single_put_size=1000, max_block_size=1000, max_single_get_size=1500, max_chunk_get_size=700
    )
    data = os.urandom(10_500)
    client = small.get_blob_client(NAME, "large")
    client.upload_blob(data, max_concurrency=3)
    assert client.download_blob(max_concurrency=2).readall() == data
    assert client.download_blob(offset=1234, length=4321).readall() == data[1234 : 1234 + 4321]
    assert len(client.get_block_list("all")[0]) == 11


@check
def blob_blocks_by_hand():
    client = container.get_blob_client("blocks")
    client.stage_block("a", b"one ")
    client.stage_block("b", b"two")
    assert [block.size for block in client.get_block_list("uncommitted")[1]] == [4, 3]
    client.commit_block_list([BlobBlock("a"), BlobBlock("b")], metadata={"m": "1"})
    assert client.download_blob().readall() == b"one two"


@check
def blob_properties_and_metadata():
    settings = ContentSettings(content_type="text/plain", content_encoding="identity", content_language="de", cache_control="no-cache", content_disposition="inline")
    client = blob("properties", content_settings=settings)
    properties = client.get_blob_properties()
    assert properties.size == 11 and properties.blob_type == "BlockBlob"
    found = properties.content_settings
    assert (found.content_type, found.content_encoding, found.content_language) == ("text/plain", "identity", "de")
    assert (found.cache_control, found.content_disposition) == ("no-cache", "inline")
    assert found.content_md5
    client.set_blob_metadata({"Name": "value"})
    assert client.get_blob_properties().metadata == {"Name": "value"}


@check
def blob_hash():
    client = blob("hashed", validate_content=True)
    assert client.download_blob().readall() == b"hello world"


@check
def blob_list_flat_and_in_pages():
    for name in ("list/a", "list/b", "list/sub/c", "list/d"):
        blob(name)
    assert [one.name for one in container.list_blobs("list/")] == ["list/a", "list/b", "list/d", "list/sub/c"]
    pages = container.list_blobs("list/", results_per_page=3).by_page()
    assert [len(list(page)) for page in pages] == [3, 1]
    assert list(container.list_blob_names(name_starts_with="list/sub")) == ["list/sub/c"]


@check
def blob_list_by_hierarchy():
    names = [one.name for one in container.walk_blobs("list/")]
    assert sorted(names) == ["list/a", "list/b", "list/d", "list/sub/"], names


@check
def conditions():
    client = blob("conditions")
    etag = client.get_blob_properties().etag
    match = dict(etag=etag, match_condition=MatchConditions.IfNotModified)
    client.set_blob_metadata({"a": "1"}, **match)
    refused(412, "ConditionNotMet", client.set_blob_metadata, {"a": "2"}, **match)
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    refused(304, None, client.download_blob, if_modified_since=later)
    client.delete_blob(if_unmodified_since=later)


@check
def lease_of_a_blob():
    client = blob("leased")
    lease = client.acquire_lease(15)
    refused(409, "LeaseAlreadyPresent", client.acquire_lease, 15)
    refused(412, "LeaseIdMissing", client.upload_blob, b"other", overwrite=True)
    refused(412, "LeaseIdMissing", client.stage_block, "a", b"other")
    client.upload_blob(b"mine", overwrite=True, lease=lease)
    lease.renew()
    lease.change(str(uuid.uuid4()))
    assert client.get_blob_properties().lease.state == "leased"
    lease.release()
    other = client.acquire_lease(-1)
    assert BlobLeaseClient(client).break_lease(0) == 0
    refused(409, "LeaseIsBrokenAndCannotBeRenewed", other.renew)


@check
def lease_of_a_container():
    lease = container.acquire_lease(15)
    refused(412, "LeaseIdMissing", container.delete_container)
    lease.release()


def expiry():
    return datetime.now(timezone.utc) + timedelta(hours=1)


@check
def sas_of_the_account():
    every = AccountSasPermissions(read=True, write=True, delete=True, list=True, create=True)
    sas = generate_account_sas(ACCOUNT, KEY, ResourceTypes(service=True, container=True, object=True), every, expiry())
    other = BlobServiceClient(ENDPOINT, credential=sas)
    assert NAME in [one.name for one in other.list_containers()]
    client = other.get_blob_client(NAME, "by-account-sas")
    client.upload_blob(b"data")
    client.acquire_lease(15).release()
    client.delete_blob()


@check
def sas_of_the_container():
    rights = ContainerSasPermissions(read=True, write=True, list=True, create=True, delete=True)
    sas = generate_container_sas(ACCOUNT, NAME, KEY, permission=rights, expiry=expiry(), start=datetime.now(timezone.utc) - timedelta(hours=1), protocol="https,http", ip="127.0.0.1")
    other = BlobServiceClient(ENDPOINT, credential=sas).get_container_client(NAME)
    client = other.upload_blob("by-container-sas", b"data")
    assert "by-container-sas" in list(other.list_blob_names())
    client.acquire_lease(15).release()
    refused(403, "AuthorizationPermissionMismatch", other.get_container_properties)


@check
def sas_of_a_blob():
    blob("by-blob-sas")
    sas = generate_blob_sas(ACCOUNT, NAME, "by-blob-sas", account_key=KEY, permission=BlobSasPermissions(read=True), expiry=expiry())
    client = BlobClient(ENDPOINT, NAME, "by-blob-sas", credential=sas)
    assert client.download_blob().readall() == b"hello world"
    refused(403, "AuthorizationPermissionMismatch", client.delete_blob)
    other = BlobClient(ENDPOINT, NAME, "plain", credential=sas)
    refused(403, "AuthenticationFailed", other.download_blob)


class Token:
    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **kwargs):
        return AccessToken(self.token, int(time.time()) + 3600)


@check
def bearer():
    def client(token):
        return BlobServiceClient(os.environ["SDKS_HTTPS_ENDPOINT"], credential=Token(token), connection_verify=os.environ["SDKS_CERTIFICATE"])

    mine = client("good-token").get_blob_client(NAME, "by-bearer")
    mine.upload_blob(b"data")
    mine.acquire_lease(15).release()
    refused(401, "InvalidAuthenticationInfo", client("bad-token").get_blob_client(NAME, "by-bearer").upload_blob, b"data")


@check
def refusal_of_what_is_not_implemented():
    client = blob("refused")
    refused(501, "NotImplemented", client.create_snapshot)
    refused(501, "NotImplemented", client.set_blob_tags, {"a": "b"})
    refused(501, "NotImplemented", client.set_standard_blob_tier, StandardBlobTier.COOL)
    refused(501, "NotImplemented", service.get_service_properties)
    refused(400, "UnsupportedHeader", client.create_append_blob)
    refused(400, "UnsupportedHeader", client.upload_blob, b"x", overwrite=True, standard_blob_tier=StandardBlobTier.COOL)
    refused(400, "UnsupportedHeader", client.acquire_lease, 15, if_tags_match_condition="\"a\" = 'b'")
    refused(400, "UnsupportedQueryParameter", client.delete_blob, version_id="2026-01-01T00:00:00.0000000Z")
    refused(400, "UnsupportedHeader", client.start_copy_from_url, client.url)
    assert client.exists()


@check
def delete():
    container.delete_blob("plain")
    container.get_blob_client("properties").delete_blob(delete_snapshots="include")
    container.delete_container()
    try:
        container.get_container_properties()
        raise AssertionError("it is gone")
    except ResourceNotFoundError:
        pass
    try:
        container.create_container()
        raise AssertionError("it is being deleted")
    except ResourceExistsError:
        pass


failed = 0
for one in checks:
    try:
        one()
        print("pass", one.__name__)
    except Exception:
        failed += 1
        print("FAIL", one.__name__)
        traceback.print_exc()
sys.exit(failed != 0)
