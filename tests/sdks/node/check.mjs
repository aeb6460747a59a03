// @azure/storage-blob against the emulator: one line for each operation.

import assert from "node:assert/strict";
import { randomBytes, randomUUID } from "node:crypto";
import {
  AccountSASPermissions,
  AccountSASResourceTypes,
  AccountSASServices,
  BlobSASPermissions,
  BlobServiceClient,
  ContainerSASPermissions,
  SASProtocol,
  StorageSharedKeyCredential,
  generateAccountSASQueryParameters,
  generateBlobSASQueryParameters,
} from "@azure/storage-blob";

const connection = process.env.SDKS_CONNECTION;
const endpoint = process.env.SDKS_ENDPOINT;
const service = BlobServiceClient.fromConnectionString(connection);
const part = (name) => connection.split(";").find((part) => part.startsWith(`${name}=`)).slice(name.length + 1);
const credential = new StorageSharedKeyCredential(part("AccountName"), part("AccountKey"));
const NAME = `node-${randomUUID().slice(0, 8)}`;
const container = service.getContainerClient(NAME);
const blob = (name) => container.getBlockBlobClient(name);

async function refused(status, code, operation) {
  try {
    await operation();
  } catch (error) {
    assert.equal(error.statusCode, status, String(error));
    if (code) assert.equal(error.code, code);
    return;
  }
  assert.fail(`${code} expected`);
}

async function text(response) {
  const chunks = [];
  for await (const chunk of response.readableStreamBody) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function all(iterator) {
  const items = [];
  for await (const item of iterator) items.push(item);
  return items;
}

const later = () => new Date(Date.now() + 3600_000);

const checks = {
  async container_create() {
    await container.create({ metadata: { kind: "check" } });
    await refused(409, "ContainerAlreadyExists", () => container.create());
    assert.equal((await container.createIfNotExists()).succeeded, false);
  },
  async container_properties_and_metadata() {
    assert.ok(await container.exists());
    await container.setMetadata({ kind: "other" });
    assert.deepEqual((await container.getProperties()).metadata, { kind: "other" });
  },
  async container_list() {
    const listed = await all(service.listContainers({ prefix: NAME, includeMetadata: true }));
    assert.deepEqual(listed.map((one) => one.name), [NAME]);
    assert.deepEqual(listed[0].metadata, { kind: "other" });
  },
  async blob_upload_and_download() {
    await blob("plain").upload("hello world", 11, { metadata: { a: "b" } });
    assert.equal(await text(await blob("plain").download()), "hello world");
    assert.equal(await text(await blob("plain").download(6, 5)), "world");
    assert.ok(await blob("plain").exists());
    assert.ok(!(await blob("none").exists()));
    await refused(404, "BlobNotFound", () => blob("none").download());
    await blob("empty").upload("", 0);
    assert.equal(await text(await blob("empty").download()), "");
  },
  async blob_upload_in_blocks_and_download_in_parts() {
    const data = randomBytes(10_500);
    await blob("large").uploadData(data, { blockSize: 1000, maxSingleShotSize: 1000, concurrency: 3 });
    assert.ok((await blob("large").downloadToBuffer(0, undefined, { blockSize: 700 })).equals(data));
    assert.equal((await blob("large").getBlockList("all")).committedBlocks.length, 11);
  },
  async blob_blocks_by_hand() {
    const id = (name) => Buffer.from(name).toString("base64");
    await blob("blocks").stageBlock(id("a"), "one ", 4);
    await blob("blocks").stageBlock(id("b"), "two", 3);
    assert.equal((await blob("blocks").getBlockList("uncommitted")).uncommittedBlocks.length, 2);
    await blob("blocks").commitBlockList([id("a"), id("b")], { metadata: { m: "1" } });
    assert.equal(await text(await blob("blocks").download()), "one two");
  },
  async blob_properties_and_metadata() {
    const blobHTTPHeaders = {
      blobContentType: "text/plain",
      blobContentEncoding: "identity",
      blobContentLanguage: "de",
      blobCacheControl: "no-cache",
      blobContentDisposition: "inline",
    };
    await blob("properties").upload("hello world", 11, { blobHTTPHeaders });
    const found = await blob("properties").getProperties();
    assert.equal(found.contentLength, 11);
    assert.deepEqual(
      [found.contentType, found.contentEncoding, found.contentLanguage, found.cacheControl, found.contentDisposition],
      Object.values(blobHTTPHeaders),
    );
    assert.equal(found.contentMD5.length, 16);
    await blob("properties").setMetadata({ name: "value" });
    assert.deepEqual((await blob("properties").getProperties()).metadata, { name: "value" });
  },
  async blob_list_flat_and_in_pages() {
    for (const name of ["list/a", "list/b", "list/sub/c", "list/d"]) await blob(name).upload("", 0);
    const listed = await all(container.listBlobsFlat({ prefix: "list/" }));
    assert.deepEqual(listed.map((one) => one.name), ["list/a", "list/b", "list/d", "list/sub/c"]);
    const pages = await all(container.listBlobsFlat({ prefix: "list/" }).byPage({ maxPageSize: 3 }));
    assert.deepEqual(pages.map((page) => page.segment.blobItems.length), [3, 1]);
  },
  async blob_list_by_hierarchy() {
    const listed = await all(container.listBlobsByHierarchy("/", { prefix: "list/" }));
    const names = listed.map((one) => `${one.kind} ${one.name}`).sort();
    assert.deepEqual(names, ["blob list/a", "blob list/b", "blob list/d", "prefix list/sub/"]);
  },
  async conditions() {
    const { etag } = await blob("conditions").upload("a", 1);
    const conditions = { ifMatch: etag };
    await blob("conditions").setMetadata({ a: "1" }, { conditions });
    await refused(412, "ConditionNotMet", () => blob("conditions").setMetadata({ a: "2" }, { conditions }));
    await refused(409, "BlobAlreadyExists", () => blob("conditions").upload("", 0, { conditions: { ifNoneMatch: "*" } }));
    await blob("conditions").delete({ conditions: { ifUnmodifiedSince: later() } });
  },
  async lease_of_a_blob() {
    await blob("leased").upload("", 0);
    const lease = blob("leased").getBlobLeaseClient();
    await lease.acquireLease(15);
    await refused(409, "LeaseAlreadyPresent", () => blob("leased").getBlobLeaseClient().acquireLease(15));
    await refused(412, "LeaseIdMissing", () => blob("leased").upload("other", 5));
    await refused(412, "LeaseIdMissing", () => blob("leased").stageBlock("YQ==", "other", 5));
    await blob("leased").upload("mine", 4, { conditions: { leaseId: lease.leaseId } });
    await lease.renewLease();
    await lease.changeLease(randomUUID());
    assert.equal((await blob("leased").getProperties()).leaseState, "leased");
    await lease.releaseLease();
    await lease.acquireLease(-1);
    assert.equal((await blob("leased").getBlobLeaseClient().breakLease(0)).leaseTime, 0);
    await refused(409, "LeaseIsBrokenAndCannotBeRenewed", () => lease.renewLease());
  },
  async lease_of_a_container() {
    const lease = container.getBlobLeaseClient();
    await lease.acquireLease(15);
    await refused(412, "LeaseIdMissing", () => container.delete());
    await lease.releaseLease();
  },
  async sas_of_the_account() {
    const sas = generateAccountSASQueryParameters(
      {
        services: AccountSASServices.parse("b").toString(),
        resourceTypes: AccountSASResourceTypes.parse("sco").toString(),
        permissions: AccountSASPermissions.parse("rwdlc"),
        expiresOn: later(),
      },
      credential,
    );
    const other = new BlobServiceClient(`${endpoint}?${sas}`);
    const listed = await all(other.listContainers());
    assert.ok(listed.some((one) => one.name === NAME));
    const client = other.getContainerClient(NAME).getBlockBlobClient("by-account-sas");
    await client.upload("data", 4);
    const lease = client.getBlobLeaseClient();
    await lease.acquireLease(15);
    await lease.releaseLease();
    await client.delete();
  },
  async sas_of_the_container() {
    const sas = generateBlobSASQueryParameters(
      {
        containerName: NAME,
        permissions: ContainerSASPermissions.parse("rwdlc"),
        startsOn: new Date(Date.now() - 3600_000),
        expiresOn: later(),
        protocol: SASProtocol.HttpsAndHttp,
        ipRange: { start: "127.0.0.1" },
      },
      credential,
    );
    const other = new BlobServiceClient(`${endpoint}?${sas}`).getContainerClient(NAME);
    await other.getBlockBlobClient("by-container-sas").upload("data", 4);
    assert.ok((await all(other.listBlobsFlat())).length > 0);
    await refused(403, "AuthorizationPermissionMismatch", () => other.getProperties());
  },
  async sas_of_a_blob() {
    const permissions = BlobSASPermissions.parse("r");
    const url = await blob("plain").generateSasUrl({ permissions, expiresOn: later() });
    const other = new BlobServiceClient(`${endpoint}${new URL(url).search}`).getContainerClient(NAME);
    assert.equal(await text(await other.getBlobClient("plain").download()), "hello world");
    await refused(403, "AuthorizationPermissionMismatch", () => other.deleteBlob("plain"));
    await refused(403, "AuthenticationFailed", () => other.getBlobClient("large").download());
  },
  async bearer() {
    const by = (token) =>
      new BlobServiceClient(process.env.SDKS_HTTPS_ENDPOINT, {
        getToken: async () => ({ token, expiresOnTimestamp: Date.now() + 3600_000 }),
      }).getContainerClient(NAME).getBlockBlobClient("by-bearer");
    await by("good-token").upload("data", 4);
    const lease = by("good-token").getBlobLeaseClient();
    await lease.acquireLease(15);
    await lease.releaseLease();
    await refused(401, "InvalidAuthenticationInfo", () => by("bad-token").upload("data", 4));
  },
  async refusal_of_what_is_not_implemented() {
    const client = blob("plain");
    await refused(501, "NotImplemented", () => client.createSnapshot());
    await refused(501, "NotImplemented", () => client.setTags({ a: "b" }));
    await refused(501, "NotImplemented", () => client.setAccessTier("Cool"));
    await refused(501, "NotImplemented", () => service.getProperties());
    await refused(400, "UnsupportedHeader", () => container.getAppendBlobClient("append").create());
    await refused(400, "UnsupportedHeader", () => client.upload("x", 1, { tier: "Cool" }));
    await refused(400, "UnsupportedHeader", () => client.upload("x", 1, { tags: { a: "b" } }));
    await refused(400, "UnsupportedHeader", () => client.syncCopyFromURL(client.url));
    await refused(400, "UnsupportedQueryParameter", () => client.withVersion("2026-01-01T00:00:00.0000000Z").delete());
    assert.ok(await client.exists());
  },
  async delete() {
    await container.deleteBlob("plain");
    await blob("properties").delete({ deleteSnapshots: "include" });
    await container.delete();
    await refused(404, "ContainerNotFound", () => container.getProperties());
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    console.log("pass", name);
  } catch (error) {
    failed += 1;
    console.log("FAIL", name);
    console.log(error);
  }
}
process.exit(failed ? 1 : 0);
