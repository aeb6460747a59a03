// azblob against the emulator: one line for each operation.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/appendblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/lease"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/service"
)

var (
	ctx        = context.Background()
	connection = os.Getenv("SDKS_CONNECTION")
	endpoint   = os.Getenv("SDKS_ENDPOINT")
	name       = fmt.Sprintf("go-%x", random(4))
	account    = must(service.NewClientFromConnectionString(connection, nil))
	own        = account.NewContainerClient(name)
)

type failure struct{ text string }

func fail(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

func must[T any](value T, err error) T {
	ok(err)
	return value
}

func ok(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func equal[T comparable](found, expected T) {
	if found != expected {
		fail("%v instead of %v", found, expected)
	}
}

func refused(status int, code string, err error) {
	var response *azcore.ResponseError
	if !errors.As(err, &response) {
		fail("%s expected: %v", code, err)
	}
	equal(response.StatusCode, status)
	equal(response.ErrorCode, code)
}

func random(length int) []byte {
	data := make([]byte, length)
	must(rand.Read(data))
	return data
}

func body(text string) io.ReadSeekCloser { return streaming.NopCloser(strings.NewReader(text)) }

func upload(client *blockblob.Client, text string, options *blockblob.UploadOptions) error {
	_, err := client.Upload(ctx, body(text), options)
	return err
}

func download(client *blockblob.Client, from, length int64) string {
	options := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: from, Count: length}}
	response := must(client.DownloadStream(ctx, options))
	return string(must(io.ReadAll(response.Body)))
}

func containerCreate() {
	options := &container.CreateOptions{Metadata: map[string]*string{"kind": to.Ptr("check")}}
	must(own.Create(ctx, options))
	_, err := own.Create(ctx, nil)
	refused(409, string(bloberror.ContainerAlreadyExists), err)
}

func containerPropertiesAndMetadata() {
	options := &container.SetMetadataOptions{Metadata: map[string]*string{"kind": to.Ptr("other")}}
	must(own.SetMetadata(ctx, options))
	found := must(own.GetProperties(ctx, nil))
	equal(*found.Metadata["Kind"], "other")
}

func containerList() {
	options := &service.ListContainersOptions{
		Prefix:  &name,
		Include: service.ListContainersInclude{Metadata: true},
	}
	page := must(account.NewListContainersPager(options).NextPage(ctx))
	equal(len(page.ContainerItems), 1)
	equal(*page.ContainerItems[0].Name, name)
	equal(*page.ContainerItems[0].Metadata["kind"], "other")
}

func blobUploadAndDownload() {
	client := own.NewBlockBlobClient("plain")
	ok(upload(client, "hello world", nil))
	equal(download(client, 0, 0), "hello world")
	equal(download(client, 6, 5), "world")
	_, err := own.NewBlockBlobClient("none").DownloadStream(ctx, nil)
	refused(404, string(bloberror.BlobNotFound), err)
	ok(upload(own.NewBlockBlobClient("empty"), "", nil))
	equal(download(own.NewBlockBlobClient("empty"), 0, 0), "")
}

func blobUploadInBlocksAndDownloadInParts() {
	client := own.NewBlockBlobClient("large")
	data := random(10_500)
	must(client.UploadStream(ctx, bytes.NewReader(data), &blockblob.UploadStreamOptions{BlockSize: 1000, Concurrency: 3}))
	found := make([]byte, len(data))
	must(client.DownloadBuffer(ctx, found, &blob.DownloadBufferOptions{BlockSize: 700}))
	equal(bytes.Equal(found, data), true)
	must(client.UploadBuffer(ctx, data, &blockblob.UploadBufferOptions{BlockSize: 1000}))
	equal(download(client, 0, 0), string(data))
}

func blobBlocksByHand() {
	client := own.NewBlockBlobClient("blocks")
	ids := []string{base64.StdEncoding.EncodeToString([]byte("a")), base64.StdEncoding.EncodeToString([]byte("b"))}
	must(client.StageBlock(ctx, ids[0], body("one "), nil))
	must(client.StageBlock(ctx, ids[1], body("two"), nil))
	list := must(client.GetBlockList(ctx, blockblob.BlockListTypeUncommitted, nil))
	equal(len(list.UncommittedBlocks), 2)
	must(client.CommitBlockList(ctx, ids, nil))
	equal(download(client, 0, 0), "one two")
	list = must(client.GetBlockList(ctx, blockblob.BlockListTypeAll, nil))
	equal(*list.CommittedBlocks[0].Size, 4)
}

func blobPropertiesAndMetadata() {
	client := own.NewBlockBlobClient("properties")
	headers := &blob.HTTPHeaders{
		BlobContentType:        to.Ptr("text/plain"),
		BlobContentEncoding:    to.Ptr("identity"),
		BlobContentLanguage:    to.Ptr("de"),
		BlobCacheControl:       to.Ptr("no-cache"),
		BlobContentDisposition: to.Ptr("inline"),
	}
	ok(upload(client, "hello world", &blockblob.UploadOptions{HTTPHeaders: headers}))
	found := must(client.GetProperties(ctx, nil))
	equal(*found.ContentLength, 11)
	equal(*found.ContentType, "text/plain")
	equal(*found.ContentEncoding, "identity")
	equal(*found.ContentLanguage, "de")
	equal(*found.CacheControl, "no-cache")
	equal(*found.ContentDisposition, "inline")
	equal(len(found.ContentMD5), 16)
	must(client.SetMetadata(ctx, map[string]*string{"name": to.Ptr("value")}, nil))
	found = must(client.GetProperties(ctx, nil))
	equal(*found.Metadata["Name"], "value")
}

func blobListFlatAndInPages() {
	for _, one := range []string{"list/a", "list/b", "list/sub/c", "list/d"} {
		ok(upload(own.NewBlockBlobClient(one), "", nil))
	}
	pager := own.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: to.Ptr("list/"), MaxResults: to.Ptr(int32(3))})
	var names []string
	pages := 0
	for pager.More() {
		page := must(pager.NextPage(ctx))
		pages++
		for _, item := range page.Segment.BlobItems {
			names = append(names, *item.Name)
		}
	}
	equal(pages, 2)
	equal(strings.Join(names, " "), "list/a list/b list/d list/sub/c")
}

func blobListByHierarchy() {
	pager := own.NewListBlobsHierarchyPager("/", &container.ListBlobsHierarchyOptions{Prefix: to.Ptr("list/")})
	page := must(pager.NextPage(ctx))
	equal(len(page.Segment.BlobItems), 3)
	equal(len(page.Segment.BlobPrefixes), 1)
	equal(*page.Segment.BlobPrefixes[0].Name, "list/sub/")
}

func conditions() {
	client := own.NewBlockBlobClient("conditions")
	etag := must(client.Upload(ctx, body("a"), nil)).ETag
	match := &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: etag}}
	metadata := map[string]*string{"a": to.Ptr("1")}
	must(client.SetMetadata(ctx, metadata, &blob.SetMetadataOptions{AccessConditions: match}))
	_, err := client.SetMetadata(ctx, metadata, &blob.SetMetadataOptions{AccessConditions: match})
	refused(412, string(bloberror.ConditionNotMet), err)
	none := &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfNoneMatch: to.Ptr(azcore.ETagAny)}}
	err = upload(client, "b", &blockblob.UploadOptions{AccessConditions: none})
	refused(409, string(bloberror.BlobAlreadyExists), err)
	until := &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfUnmodifiedSince: to.Ptr(time.Now().Add(time.Hour))}}
	must(client.Delete(ctx, &blob.DeleteOptions{AccessConditions: until}))
}

func leaseOfABlob() {
	client := own.NewBlockBlobClient("leased")
	ok(upload(client, "", nil))
	first := must(lease.NewBlobClient(client, nil))
	second := must(lease.NewBlobClient(client, nil))
	must(first.AcquireLease(ctx, 15, nil))
	_, err := second.AcquireLease(ctx, 15, nil)
	refused(409, string(bloberror.LeaseAlreadyPresent), err)
	refused(412, string(bloberror.LeaseIDMissing), upload(client, "other", nil))
	_, err = client.StageBlock(ctx, "YQ==", body("other"), nil)
	refused(412, string(bloberror.LeaseIDMissing), err)
	holder := &blob.AccessConditions{LeaseAccessConditions: &blob.LeaseAccessConditions{LeaseID: first.LeaseID()}}
	ok(upload(client, "mine", &blockblob.UploadOptions{AccessConditions: holder}))
	must(first.RenewLease(ctx, nil))
	must(first.ChangeLease(ctx, "00000000-0000-4000-8000-00000000000a", nil))
	equal(*must(client.GetProperties(ctx, nil)).LeaseState, lease.StateTypeLeased)
	must(first.ReleaseLease(ctx, nil))
	must(first.AcquireLease(ctx, -1, nil))
	equal(*must(second.BreakLease(ctx, &lease.BlobBreakOptions{BreakPeriod: to.Ptr(int32(0))})).LeaseTime, 0)
	_, err = first.RenewLease(ctx, nil)
	refused(409, string(bloberror.LeaseIsBrokenAndCannotBeRenewed), err)
}

func leaseOfAContainer() {
	holder := must(lease.NewContainerClient(own, nil))
	must(holder.AcquireLease(ctx, 15, nil))
	_, err := own.Delete(ctx, nil)
	refused(412, string(bloberror.LeaseIDMissing), err)
	must(holder.ReleaseLease(ctx, nil))
}

func sasOfTheAccount() {
	types := sas.AccountResourceTypes{Service: true, Container: true, Object: true}
	rights := sas.AccountPermissions{Read: true, Write: true, Delete: true, List: true, Create: true}
	url := must(account.GetSASURL(types, rights, time.Now().Add(time.Hour), nil))
	other := must(service.NewClientWithNoCredential(url, nil))
	must(other.NewListContainersPager(nil).NextPage(ctx))
	client := other.NewContainerClient(name).NewBlockBlobClient("by-account-sas")
	ok(upload(client, "data", nil))
	holder := must(lease.NewBlobClient(client, nil))
	must(holder.AcquireLease(ctx, 15, nil))
	must(holder.ReleaseLease(ctx, nil))
	must(client.Delete(ctx, nil))
}

func sasOfTheContainer() {
	rights := sas.ContainerPermissions{Read: true, Write: true, Delete: true, List: true, Create: true}
	start := time.Now().Add(-time.Hour)
	url := must(own.GetSASURL(rights, time.Now().Add(time.Hour), &container.GetSASURLOptions{StartTime: &start}))
	other := must(container.NewClientWithNoCredential(url, nil))
	ok(upload(other.NewBlockBlobClient("by-container-sas"), "data", nil))
	must(other.NewListBlobsFlatPager(nil).NextPage(ctx))
	_, err := other.GetProperties(ctx, nil)
	refused(403, string(bloberror.AuthorizationPermissionMismatch), err)
}

func sasOfABlob() {
	rights := sas.BlobPermissions{Read: true}
	url := must(own.NewBlockBlobClient("plain").GetSASURL(rights, time.Now().Add(time.Hour), nil))
	client := must(blockblob.NewClientWithNoCredential(url, nil))
	equal(download(client, 0, 0), "hello world")
	_, err := client.Delete(ctx, nil)
	refused(403, string(bloberror.AuthorizationPermissionMismatch), err)
	other := must(blockblob.NewClientWithNoCredential(strings.Replace(url, "plain", "large", 1), nil))
	_, err = other.DownloadStream(ctx, nil)
	refused(403, string(bloberror.AuthenticationFailed), err)
}

type token string

func (t token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func bearer() {
	by := func(text string) *blockblob.Client {
		url := os.Getenv("SDKS_HTTPS_ENDPOINT") + "/" + name + "/by-bearer"
		return must(blockblob.NewClient(url, token(text), nil))
	}
	ok(upload(by("good-token"), "data", nil))
	holder := must(lease.NewBlobClient(by("good-token"), nil))
	must(holder.AcquireLease(ctx, 15, nil))
	must(holder.ReleaseLease(ctx, nil))
	refused(401, string(bloberror.InvalidAuthenticationInfo), upload(by("bad-token"), "data", nil))
}

func refusalOfWhatIsNotImplemented() {
	client := own.NewBlockBlobClient("plain")
	notImplemented := "NotImplemented"
	_, err := client.CreateSnapshot(ctx, nil)
	refused(501, notImplemented, err)
	_, err = client.SetTags(ctx, map[string]string{"a": "b"}, nil)
	refused(501, notImplemented, err)
	_, err = client.SetTier(ctx, blob.AccessTierCool, nil)
	refused(501, notImplemented, err)
	_, err = account.GetProperties(ctx, nil)
	refused(501, notImplemented, err)
	_, err = own.NewAppendBlobClient("append").Create(ctx, &appendblob.CreateOptions{})
	refused(400, string(bloberror.UnsupportedHeader), err)
	err = upload(client, "x", &blockblob.UploadOptions{Tier: to.Ptr(blob.AccessTierCool)})
	refused(400, string(bloberror.UnsupportedHeader), err)
	_, err = client.CopyFromURL(ctx, client.URL(), nil)
	refused(400, string(bloberror.UnsupportedHeader), err)
	_, err = must(client.WithVersionID("2026-01-01T00:00:00.0000000Z")).Delete(ctx, nil)
	refused(400, string(bloberror.UnsupportedQueryParameter), err)
	equal(download(client, 0, 0), "hello world")
}

func remove() {
	must(own.NewBlockBlobClient("plain").Delete(ctx, nil))
	include := blob.DeleteSnapshotsOptionTypeInclude
	must(own.NewBlockBlobClient("properties").Delete(ctx, &blob.DeleteOptions{DeleteSnapshots: &include}))
	must(own.Delete(ctx, nil))
	_, err := own.GetProperties(ctx, nil)
	refused(404, string(bloberror.ContainerNotFound), err)
}

func main() {
	checks := []struct {
		name string
		run  func()
	}{
		{"container_create", containerCreate},
		{"container_properties_and_metadata", containerPropertiesAndMetadata},
		{"container_list", containerList},
		{"blob_upload_and_download", blobUploadAndDownload},
		{"blob_upload_in_blocks_and_download_in_parts", blobUploadInBlocksAndDownloadInParts},
		{"blob_blocks_by_hand", blobBlocksByHand},
		{"blob_properties_and_metadata", blobPropertiesAndMetadata},
		{"blob_list_flat_and_in_pages", blobListFlatAndInPages},
		{"blob_list_by_hierarchy", blobListByHierarchy},
		{"conditions", conditions},
		{"lease_of_a_blob", leaseOfABlob},
		{"lease_of_a_container", leaseOfAContainer},
		{"sas_of_the_account", sasOfTheAccount},
		{"sas_of_the_container", sasOfTheContainer},
		{"sas_of_a_blob", sasOfABlob},
		{"bearer", bearer},
		{"refusal_of_what_is_not_implemented", refusalOfWhatIsNotImplemented},
		{"delete", remove},
	}
	results := make([]bool, 0, len(checks))
	for _, check := range checks {
		results = append(results, passes(check.name, check.run))
	}
	if slices.Contains(results, false) {
		os.Exit(1)
	}
}

func passes(name string, run func()) (passed bool) {
	defer func() {
		if found := recover(); found != nil {
			why, isFailure := found.(failure)
			if !isFailure {
				panic(found)
			}
			fmt.Println("FAIL", name)
			fmt.Println(why.text)
		}
	}()
	run()
	fmt.Println("pass", name)
	return true
}
