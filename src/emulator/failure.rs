//! The service's refusals: status, code and text.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>

use super::lease::Refusal;

/// A refusal, before it is written as a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
    /// Elements of the body after the message.
    pub(super) details: Vec<(&'static str, String)>,
    pub(super) origin: Origin,
}

/// Which part of the service refuses. The headers differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The Blob service.
    Service,
    /// The front end, which knows signatures but neither versions nor client request IDs.
    FrontDoor,
    /// The HTTP library below both, for requests that it cannot parse.
    Http,
}

macro_rules! failures {
    ($($name:ident = $status:literal $code:literal, $message:literal;)*) => {
        $(pub(super) const $name: Failure = Failure::new($status, $code, $message);)*
    };
}

failures! {
    INVALID_AUTHENTICATION_INFO = 400 "InvalidAuthenticationInfo",
        "Authentication information is not given in the correct format. Check the value of Authorization header.";
    BLOCK_LIST_TOO_LONG = 400 "BlockListTooLong",
        "The block list may not contain more than 50,000 blocks.";
    INVALID_BLOB_OR_BLOCK = 400 "InvalidBlobOrBlock",
        "The specified blob or block content is invalid.";
    INVALID_BLOCK_ID = 400 "InvalidBlockId",
        "The specified block ID is invalid. The block ID must be Base64-encoded.";
    INVALID_BLOCK_LIST = 400 "InvalidBlockList", "The specified block list is invalid.";
    INVALID_HEADER_VALUE = 400 "InvalidHeaderValue",
        "The value for one of the HTTP headers is not in the correct format.";
    INVALID_MD5 = 400 "InvalidMd5",
        "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and base64-encoded.";
    INVALID_METADATA = 400 "InvalidMetadata",
        "The metadata specified is invalid. It has characters that are not permitted.";
    INVALID_QUERY_PARAMETER_VALUE = 400 "InvalidQueryParameterValue",
        "Value for one of the query parameters specified in the request URI is invalid.";
    INVALID_RESOURCE_NAME = 400 "InvalidResourceName",
        "The specifed resource name contains invalid characters.";
    INVALID_URI = 400 "InvalidUri",
        "The requested URI does not represent any resource on the server.";
    INVALID_XML_DOCUMENT = 400 "InvalidXmlDocument",
        "XML specified is not syntactically valid.";
    MD5_MISMATCH = 400 "Md5Mismatch",
        "The MD5 value specified in the request did not match with the MD5 value calculated by the server.";
    METADATA_TOO_LARGE = 400 "MetadataTooLarge",
        "The metadata specified exceeds the maximum permissible limit.";
    MISSING_REQUIRED_HEADER = 400 "MissingRequiredHeader",
        "An HTTP header that's mandatory for this request is not specified.";
    UNSUPPORTED_HEADER = 400 "UnsupportedHeader",
        "One of the HTTP headers specified in the request is not supported.";
    UNSUPPORTED_QUERY_PARAMETER = 400 "UnsupportedQueryParameter",
        "One of the query parameters specified in the request URI is not supported.";
    NO_AUTHENTICATION_INFORMATION = 401 "NoAuthenticationInformation",
        "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";
    INVALID_TOKEN = 401 "InvalidAuthenticationInfo",
        "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";
    AUTHENTICATION_FAILED = 403 "AuthenticationFailed",
        "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.";
    AUTHORIZATION_PERMISSION_MISMATCH = 403 "AuthorizationPermissionMismatch",
        "This request is not authorized to perform this operation using this permission.";
    AUTHORIZATION_PROTOCOL_MISMATCH = 403 "AuthorizationProtocolMismatch",
        "This request is not authorized to perform this operation using this protocol.";
    AUTHORIZATION_RESOURCE_TYPE_MISMATCH = 403 "AuthorizationResourceTypeMismatch",
        "This request is not authorized to perform this operation using this resource type.";
    AUTHORIZATION_SERVICE_MISMATCH = 403 "AuthorizationServiceMismatch",
        "This request is not authorized to perform this operation using this service.";
    AUTHORIZATION_SOURCE_IP_MISMATCH = 403 "AuthorizationSourceIPMismatch",
        "This request is not authorized to perform this operation using this source IP.";
    KEY_BASED_AUTHENTICATION_NOT_PERMITTED = 403 "KeyBasedAuthenticationNotPermitted",
        "Key based authentication is not permitted on this storage account.";
    UNAUTHORIZED_BLOB_OVERWRITE = 403 "UnauthorizedBlobOverwrite",
        "This request is not authorized to perform blob overwrites.";
    BLOB_NOT_FOUND = 404 "BlobNotFound", "The specified blob does not exist.";
    CONTAINER_NOT_FOUND = 404 "ContainerNotFound", "The specified container does not exist.";
    RESOURCE_NOT_FOUND = 404 "ResourceNotFound", "The specified resource does not exist.";
    UNSUPPORTED_HTTP_VERB = 405 "UnsupportedHttpVerb",
        "The resource doesn't support specified Http Verb.";
    BLOB_ALREADY_EXISTS = 409 "BlobAlreadyExists", "The specified blob already exists.";
    CONTAINER_ALREADY_EXISTS = 409 "ContainerAlreadyExists",
        "The specified container already exists.";
    CONTAINER_BEING_DELETED = 409 "ContainerBeingDeleted",
        "The specified container is being deleted. Try operation later.";
    MISSING_CONTENT_LENGTH_HEADER = 411 "MissingContentLengthHeader",
        "The Content-Length header was not specified.";
    CONDITION_NOT_MET = 412 "ConditionNotMet",
        "The condition specified using HTTP conditional header(s) is not met.";
    REQUEST_BODY_TOO_LARGE = 413 "RequestBodyTooLarge",
        "The request body is too large and exceeds the maximum permissible limit.";
    INVALID_RANGE = 416 "InvalidRange",
        "The range specified is invalid for the current size of the resource.";
    NOT_IMPLEMENTED = 501 "NotImplemented",
        "The requested operation is not implemented on the specified resource.";

    BAD_REQUEST = 400 "", "Bad Request";
    HEADERS_TOO_LARGE = 431 "", "Request Header Fields Too Large";
}

impl Failure {
    const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        let origin = if code.is_empty() {
            Origin::Http
        } else {
            Origin::Service
        };
        Self {
            status,
            code,
            message,
            details: Vec::new(),
            origin,
        }
    }

    fn detail(mut self, name: &'static str, text: &str) -> Self {
        self.details.push((name, text.to_owned()));
        self
    }

    /// `InvalidHeaderValue`, naming the header and what it held.
    pub(super) fn invalid_header(name: &str, value: &str) -> Self {
        INVALID_HEADER_VALUE
            .detail("HeaderName", name)
            .detail("HeaderValue", value)
    }

    pub(super) fn missing_header(name: &str) -> Self {
        MISSING_REQUIRED_HEADER.detail("HeaderName", name)
    }

    pub(super) fn invalid_query(name: &str, value: &str) -> Self {
        INVALID_QUERY_PARAMETER_VALUE
            .detail("QueryParameterName", name)
            .detail("QueryParameterValue", value)
            .detail("Reason", "")
    }

    pub(super) fn unsupported_header(name: &str, value: &str) -> Self {
        UNSUPPORTED_HEADER
            .detail("HeaderName", name)
            .detail("HeaderValue", value)
    }

    pub(super) fn unsupported_query(name: &str, value: &str) -> Self {
        UNSUPPORTED_QUERY_PARAMETER
            .detail("QueryParameterName", name)
            .detail("QueryParameterValue", value)
            .detail("Reason", "The emulator does not implement it.")
    }

    /// An operation of the service that the emulator does not have.
    pub(super) fn not_implemented(restype: &str, comp: &str) -> Self {
        let reason = "The emulator does not implement this operation.";
        NOT_IMPLEMENTED
            .detail("restype", restype)
            .detail("comp", comp)
            .detail("Reason", reason)
    }

    /// `AuthenticationFailed`, with the reason that the service gives.
    pub(super) fn authentication(reason: &str) -> Self {
        Self {
            origin: Origin::FrontDoor,
            ..AUTHENTICATION_FAILED.detail("AuthenticationErrorDetail", reason)
        }
    }

    /// A bearer token that is not valid, with the reason that the service gives.
    pub(super) fn invalid_token(reason: &str) -> Self {
        Self {
            origin: Origin::FrontDoor,
            ..INVALID_TOKEN.detail("AuthenticationErrorDetail", reason)
        }
    }

    pub(super) fn invalid_authentication_info() -> Self {
        Self {
            origin: Origin::FrontDoor,
            ..INVALID_AUTHENTICATION_INFO
        }
    }
}

/// What a lease belongs to. Codes and texts differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resource {
    Blob,
    Container,
}

impl Refusal {
    /// The refusal as the service words it for this kind of resource.
    pub(super) fn of(self, resource: Resource) -> Failure {
        let (status, code, on_blob, on_container) = match self {
            Self::AlreadyPresent => (
                409,
                "LeaseAlreadyPresent",
                "There is already a lease present.",
                "There is already a lease present.",
            ),
            Self::IsBreakingAndCannotBeAcquired => (
                409,
                "LeaseIsBreakingAndCannotBeAcquired",
                "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken.",
                "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken.",
            ),
            Self::IsBreakingAndCannotBeChanged => (
                409,
                "LeaseIsBreakingAndCannotBeChanged",
                "The lease ID matched, but the lease is currently in breaking state and cannot be changed.",
                "The lease ID matched, but the lease is currently in breaking state and cannot be changed.",
            ),
            Self::IsBrokenAndCannotBeRenewed => (
                409,
                "LeaseIsBrokenAndCannotBeRenewed",
                "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.",
                "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.",
            ),
            Self::IdMismatchWithLeaseOperation => (
                409,
                "LeaseIdMismatchWithLeaseOperation",
                "The lease ID specified did not match the lease ID for the blob.",
                "The lease ID specified did not match the lease ID for the container.",
            ),
            Self::NotPresentWithLeaseOperation => (
                409,
                "LeaseNotPresentWithLeaseOperation",
                "There is currently no lease on the blob.",
                "There is currently no lease on the container.",
            ),
            Self::IdMissing => (
                412,
                "LeaseIdMissing",
                "There is currently a lease on the blob and no lease ID was specified in the request.",
                "There is currently a lease on the container and no lease ID was specified in the request.",
            ),
            Self::IdMismatch => (
                412,
                match resource {
                    Resource::Blob => "LeaseIdMismatchWithBlobOperation",
                    Resource::Container => "LeaseIdMismatchWithContainerOperation",
                },
                "The lease ID specified did not match the lease ID for the blob.",
                "The lease ID specified did not match the lease ID for the container.",
            ),
            Self::NotPresent => (
                412,
                match resource {
                    Resource::Blob => "LeaseNotPresentWithBlobOperation",
                    Resource::Container => "LeaseNotPresentWithContainerOperation",
                },
                "There is currently no lease on the blob.",
                "There is currently no lease on the container.",
            ),
            Self::Lost => (
                412,
                "LeaseLost",
                "A lease ID was specified, but the lease for the blob has expired.",
                "A lease ID was specified, but the lease for the container has expired.",
            ),
        };
        let message = match resource {
            Resource::Blob => on_blob,
            Resource::Container => on_container,
        };
        Failure::new(status, code, message)
    }
}
